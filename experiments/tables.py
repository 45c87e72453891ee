"""The tables for readers, as CSV, Markdown and LaTeX: `python -m experiments.tables`.

Writes results/tables/accuracy: accuracy by method and budget, from results/accuracy.csv.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import table_formats
from experiments.accuracy import ALL, RESULT
from experiments.parameters import load_parameters
from experiments.table_formats import Measured

TABLES = Path("results/tables")
FIRST = ("full", "random")
# They look at the answer's evidence or keep everything: no competitors for the best value of a column.
BOUNDS = ("full", "oracle")


def accuracy_table(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Overall accuracy in percent with its interval, method x budget; full and random first, the best one marked."""
    overall = accuracy[accuracy["type"] == ALL]
    names = list(dict.fromkeys(overall["method"]))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    best = overall[~overall["method"].isin(BOUNDS)].groupby("budget")["accuracy"].max()
    cells = {(row["method"], row["budget"]): _cell(row, best.get(row["budget"])) for _, row in overall.iterrows()}
    budgets = sorted(overall["budget"].unique(), reverse=True)
    columns = {f"{budget:.1%}": [cells.get((name, budget), "") for name in names] for budget in budgets}
    return pd.DataFrame({"method": names} | columns)


def _cell(row: pd.Series, best: float | None) -> Measured | str:
    if not row["feasible"]:
        return f"floor {row['floor']:.1f}"
    value, low, high = (100 * row[name] for name in ("accuracy", "ci_low", "ci_high"))
    return Measured(value, low, high, best=row["method"] not in BOUNDS and row["accuracy"] == best)


def accuracy_caption(accuracy: pd.DataFrame, confidence: float) -> str:
    """What the numbers are, over how many questions, and how sure."""
    measured: Any = accuracy[accuracy["feasible"] & (accuracy["type"] == ALL)]
    return (
        f"Accuracy in percent of {measured['model'].iloc[0]} on {measured['benchmark'].iloc[0]}, "
        f"n = {measured['n'].max()} questions, with its {100 * confidence:g}% bootstrap interval in small type, by "
        "budget: mean visual tokens over the decoder layers, as a share of all. Bold: the best method at a budget, "
        "full and oracle aside. Where no setting of a method comes near a budget: its floor, the fewest mean visual "
        "tokens that it reaches."
    )


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if not RESULT.exists():
        parser.exit(1, f"error: {RESULT} is missing; `dvc repro accuracy` writes it\n")
    parameters, accuracy = load_parameters(), pd.read_csv(RESULT)
    caption = accuracy_caption(accuracy, parameters.accuracy.confidence)
    table_formats.write(TABLES / "accuracy", accuracy_table(accuracy), caption)


if __name__ == "__main__":
    main()
