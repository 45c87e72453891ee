"""Accuracy against cost, and what is on the Pareto front: `python -m experiments.pareto`.

Writes results/pareto.csv, one row per method and feasible budget, once for all questions and once for those that take
several looks: accuracy with its interval, FLOPs and measured
latency of the prefill as shares of the full model's, and whether the point is on the front of either. Fronts are of the
measured accuracies, not of their intervals. The oracles look at the evidence and take no part in them. Latency is
measured at fewer budgets than accuracy; the others stay empty.
"""

from pathlib import Path

import pandas as pd

from analysis.pareto import on_front
from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import paths
from experiments.recorded.by_type import ALL, SEVERAL_LOOKS
from experiments.recorded.cells import write_text

RESULT = Path("results/pareto.csv")
CELL = ["model", "benchmark", "method", "budget"]
COSTS = ("flops_ratio", "latency_ratio")


def table(accuracy: pd.DataFrame, flops: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """pareto.csv from accuracy.csv, flops.csv and latency.csv; see the module's text."""
    cells = accuracy[accuracy["type"].isin((ALL, SEVERAL_LOOKS)) & accuracy["feasible"]]
    cells = cells[[*CELL, "type", "role", "accuracy", "ci_low", "ci_high"]]
    flops = flops[[*CELL, "ratio_to_full"]].rename(columns={"ratio_to_full": "flops_ratio"})
    ends = {f"ratio{end}": f"latency_ratio{end}" for end in ("", "_low", "_high")}
    latency = latency[[*CELL, *ends]].rename(columns=ends)
    joined = cells.merge(flops, on=CELL, how="left").merge(latency, on=CELL, how="left")
    for cost in COSTS:
        rivals = joined[joined[cost].notna() & joined["role"].ne("oracle")]
        fronts = [
            pd.Series(on_front(rows[cost], rows["accuracy"]), index=rows.index) for _, rows in rivals.groupby("type")
        ]
        front = pd.concat(fronts) if fronts else pd.Series(dtype=bool)
        joined[f"on_{cost.removesuffix('_ratio')}_front"] = front.reindex(joined.index, fill_value=False)
    return joined.drop(columns="role")


def write(parameters: Parameters) -> None:
    """The table."""
    files = [paths.needed(path, path.stem) for path in (paths.ACCURACY, paths.FLOPS, paths.LATENCY)]
    write_text(RESULT, table(*(pd.read_csv(path) for path in files)).to_csv(index=False))


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
