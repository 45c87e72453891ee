"""Accuracy of every method and budget with bootstrap intervals: `python -m experiments.accuracy`.

Writes results/accuracy.csv (one row per method, budget and group of questions, see experiments/recorded/by_type.py),
results/accuracy_by_budget.csv (overall, what `dvc plots show` draws) and results/metrics.json.
"""

import json
from pathlib import Path

import pandas as pd

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import paths, predictions
from experiments.recorded.by_type import ALL, SEVERAL_LOOKS, groups
from experiments.recorded.cells import write_text
from experiments.recorded.measured import measured

RESULT = paths.ACCURACY
BY_BUDGET = Path("results/accuracy_by_budget.csv")
METRICS = Path("results/metrics.json")


def table(parameters: Parameters) -> pd.DataFrame:
    """accuracy.csv: rows in the order of params.yaml.

    `flops` is a whole prefill, the mean over all questions of the cell. A budget that a method cannot reach has one row
    per group with `feasible` False, the method's `floor` (mean visual tokens) and nothing measured.
    """
    flops = pd.read_csv(paths.FLOPS).set_index(["method", "budget"])["total"]
    columns = ["type", "parameters", "correct", "visual_tokens_per_layer"]
    cells = list(predictions.read(parameters.evaluate, columns))
    types = {kind for cell in cells for kind in cell.answers["type"].unique()}
    rows = []
    for cell in cells:
        head = {"model": parameters.model, "benchmark": parameters.evaluate.benchmark}
        fixed = parameters.evaluate.methods[cell.method]
        for kind, of_kind in groups(cell.answers, parameters.evaluate.benchmark, types):
            row = {**head, "type": kind, "method": cell.method, "role": cell.role, "budget": cell.budget}
            row |= {"parameters": json.dumps(fixed), "feasible": cell.feasible, "floor": cell.floor, "n": len(of_kind)}
            if cell.feasible:
                row |= {"parameters": shared_parameters(of_kind), "flops": flops.loc[(cell.method, cell.budget)]}
                row |= measured(of_kind, parameters)
            rows.append(row)
    order = "model benchmark type method role parameters budget feasible floor mean_visual_tokens"
    order += " visual_tokens_per_layer flops n accuracy ci_low ci_high"
    return pd.DataFrame(rows).reindex(columns=order.split())


def shared_parameters(answers: pd.DataFrame) -> str:
    """The parameters (JSON) that all questions have in common: images of several sizes may need several `keep`s."""
    settings = [json.loads(text) for text in answers["parameters"].unique()]
    return json.dumps({name: value for name, value in settings[0].items() if all(value == s[name] for s in settings)})


def metrics(accuracy: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy over all questions and over those that take several looks, by method and budget; feasible cells only."""
    feasible = accuracy[accuracy["feasible"] & accuracy["type"].isin((ALL, SEVERAL_LOOKS))]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (kind, method), rows in feasible.groupby(["type", "method"], sort=False):
        values = zip(rows["budget"], rows["accuracy"], strict=True)
        found.setdefault(kind, {})[method] = {f"{budget:.1%}": value for budget, value in values}
    return found


def by_budget(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Overall accuracy by budget and method, feasible cells only."""
    overall = accuracy[(accuracy["type"] == ALL) & accuracy["feasible"]]
    return overall[["method", "budget", "accuracy"]]


def write(parameters: Parameters) -> None:
    """The three files."""
    accuracy = table(parameters)
    write_text(RESULT, accuracy.to_csv(index=False))
    write_text(BY_BUDGET, by_budget(accuracy).to_csv(index=False))
    write_text(METRICS, json.dumps(metrics(accuracy), indent=1) + "\n")


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
