"""Accuracy against cost, and what is on the Pareto front: `python -m experiments.pareto`.

Writes results/pareto.csv, one row per method and feasible budget: accuracy with its interval, FLOPs and measured
latency of the prefill as shares of the full model's, and whether the point is on the front of either. Fronts are of the
measured accuracies, not of their intervals. The oracles look at the evidence and take no part in them. Latency is
measured at fewer budgets than accuracy; the others stay empty.
"""

import argparse
from pathlib import Path

import pandas as pd

from analysis.pareto import on_front
from experiments.accuracy import ALL
from experiments.cells import write_text

ACCURACY = Path("results/accuracy.csv")
FLOPS = Path("results/flops.csv")
LATENCY = Path("results/latency.csv")
RESULT = Path("results/pareto.csv")
CELL = ["model", "benchmark", "method", "budget"]
COSTS = ("flops_ratio", "latency_ratio")
ORACLES = ("oracle", "oracle_inside")  # which look at the evidence


def table(accuracy: pd.DataFrame, flops: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """pareto.csv from accuracy.csv, flops.csv and latency.csv; see the module's text."""
    cells = accuracy[(accuracy["type"] == ALL) & accuracy["feasible"]]
    cells = cells[[*CELL, "accuracy", "ci_low", "ci_high"]]
    flops = flops[[*CELL, "ratio_to_full"]].rename(columns={"ratio_to_full": "flops_ratio"})
    ends = {f"ratio{end}": f"latency_ratio{end}" for end in ("", "_low", "_high")}
    latency = latency[[*CELL, *ends]].rename(columns=ends)
    joined = cells.merge(flops, on=CELL, how="left").merge(latency, on=CELL, how="left")
    for cost in COSTS:
        rivals = joined[joined[cost].notna() & ~joined["method"].isin(ORACLES)]
        front = pd.Series(on_front(rivals[cost], rivals["accuracy"]), index=rivals.index)
        joined[f"on_{cost.removesuffix('_ratio')}_front"] = front.reindex(joined.index, fill_value=False)
    return joined


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    for path in (ACCURACY, FLOPS, LATENCY):
        if not path.exists():
            parser.exit(1, f"error: {path} is missing; `dvc repro {path.stem}` writes it\n")
    write_text(RESULT, table(*(pd.read_csv(path) for path in (ACCURACY, FLOPS, LATENCY))).to_csv(index=False))


if __name__ == "__main__":
    main()
