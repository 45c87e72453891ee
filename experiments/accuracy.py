"""Accuracy of every method and budget with bootstrap intervals: `python -m experiments.accuracy`.

Writes results/accuracy.csv (one row per method, budget and question type, and one over all types),
results/accuracy_by_budget.csv (overall, what `dvc plots show` draws) and results/metrics.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.significance import accuracy_interval
from experiments import predictions
from experiments.cells import write_text
from experiments.parameters import Parameters, load_parameters

RESULT = Path("results/accuracy.csv")
BY_BUDGET = Path("results/accuracy_by_budget.csv")
METRICS = Path("results/metrics.json")
FLOPS = Path("results/flops.csv")
ALL = "all"


def table(parameters: Parameters) -> pd.DataFrame:
    """accuracy.csv: rows in the order of params.yaml.

    `flops` is a whole prefill, the mean over all questions of the cell. A budget that a method cannot reach has one row
    per type with `feasible` False, the method's `floor` (mean visual tokens) and nothing measured.
    """
    flops = pd.read_csv(FLOPS).set_index(["method", "budget"])["total"]
    columns = ["type", "parameters", "correct", "visual_tokens_per_layer"]
    cells = list(predictions.read(parameters.evaluate, columns))
    types = [ALL, *sorted({kind for cell in cells for kind in cell.answers["type"].unique()})]
    rows = []
    for cell in cells:
        head = {"model": parameters.model, "benchmark": parameters.evaluate.benchmark}
        fixed = parameters.evaluate.methods[cell.method]
        for kind in types:
            of_kind = cell.answers if kind == ALL else cell.answers[cell.answers["type"] == kind]
            row = {**head, "type": kind, "method": cell.method, "parameters": json.dumps(fixed), "budget": cell.budget}
            row |= {"feasible": cell.feasible, "floor": cell.floor, "n": len(of_kind)}
            if cell.feasible:
                row |= {"parameters": shared_parameters(of_kind), "flops": flops.loc[(cell.method, cell.budget)]}
                row |= measured(of_kind, parameters)
            rows.append(row)
    order = (
        "model benchmark type method parameters budget feasible floor mean_visual_tokens visual_tokens_per_layer flops"
    )
    return pd.DataFrame(rows).reindex(columns=[*order.split(), "n", "accuracy", "ci_low", "ci_high"])


def measured(answers: pd.DataFrame, parameters: Parameters) -> dict[str, Any]:
    """Accuracy, its interval, and the visual tokens that were really there, as means over the questions."""
    settings = parameters.accuracy
    correct = answers["correct"].to_numpy(dtype=float)
    low, high = accuracy_interval(
        correct, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
    )
    per_layer = np.stack(answers["visual_tokens_per_layer"].to_list()).mean(0)
    return {
        "mean_visual_tokens": round(float(per_layer.mean()), 3),
        "visual_tokens_per_layer": json.dumps([round(float(count), 2) for count in per_layer]).replace(".0", ""),
        "accuracy": round(float(correct.mean()), 6),
        "ci_low": round(low, 6),
        "ci_high": round(high, 6),
    }


def shared_parameters(answers: pd.DataFrame) -> str:
    """The parameters (JSON) that all questions have in common: images of several sizes may need several `keep`s."""
    settings = [json.loads(text) for text in answers["parameters"].unique()]
    return json.dumps({name: value for name, value in settings[0].items() if all(value == s[name] for s in settings)})


def metrics(accuracy: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Overall accuracy by method and budget in percent, feasible cells only."""
    overall = accuracy[(accuracy["type"] == ALL) & accuracy["feasible"]]
    return {
        str(method): {f"{budget:.1%}": value for budget, value in zip(rows["budget"], rows["accuracy"], strict=True)}
        for method, rows in overall.groupby("method", sort=False)
    }


def by_budget(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Overall accuracy by budget and method, feasible cells only."""
    overall = accuracy[(accuracy["type"] == ALL) & accuracy["feasible"]]
    return overall[["method", "budget", "accuracy"]]


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        accuracy = table(load_parameters(try_methods=False))
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    write_text(RESULT, accuracy.to_csv(index=False))
    write_text(BY_BUDGET, by_budget(accuracy).to_csv(index=False))
    write_text(METRICS, json.dumps(metrics(accuracy), indent=1) + "\n")


if __name__ == "__main__":
    main()
