"""The accuracy table as Markdown, from results/accuracy.csv: `python -m experiments.tables`."""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.accuracy import ALL, RESULT
from experiments.cells import write_text

TABLE = Path("results/tables/accuracy.md")
FIRST = ("full", "random")
# They look at the answer's evidence or keep everything: no competitors for the best value of a column.
BOUNDS = ("full", "oracle")


def markdown(accuracy: pd.DataFrame) -> str:
    """Overall accuracy in percent with its interval, method x budget; full and random first, best in bold."""
    overall = accuracy[accuracy["type"] == ALL]
    names = list(dict.fromkeys(overall["method"]))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    budgets = sorted(overall["budget"].unique(), reverse=True)
    rivals = overall[~overall["method"].isin(BOUNDS)]
    best = rivals.groupby("budget")["accuracy"].max()
    lines = [
        "| method | " + " | ".join(f"{budget:.1%}" for budget in budgets) + " |",
        "|---" * (len(budgets) + 1) + "|",
    ]
    for name in names:
        rows = overall[overall["method"] == name].set_index("budget")
        values = [entry(rows.loc[budget], best.get(budget)) if budget in rows.index else "" for budget in budgets]
        lines.append(f"| {name} | " + " | ".join(values) + " |")
    feasible = overall[overall["feasible"]]
    caption = (
        f"Accuracy in percent (with its confidence interval) of {feasible['model'].iloc[0]} on "
        f"{feasible['benchmark'].iloc[0]}, n = {feasible['n'].max()} questions, by budget: mean visual tokens over the "
        "decoder layers, as a share of all. Bold: the best method at a budget, full and oracle aside. Where no "
        "setting of a method comes near a budget: its floor, the fewest mean visual tokens that it reaches."
    )
    return "\n".join([*lines, "", caption, ""])


def entry(row: Any, best: float | None) -> str:
    """One cell of the table."""
    if not row["feasible"]:
        return f"floor {row['floor']:.1f}"
    value = f"{row['accuracy']:.1%}".rstrip("%")
    if row["method"] not in BOUNDS and row["accuracy"] == best:
        value = f"**{value}**"
    return f"{value} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})"


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    if not RESULT.exists():
        parser.exit(1, f"error: {RESULT} is missing; `dvc repro accuracy` writes it\n")
    write_text(TABLE, markdown(pd.read_csv(RESULT)))


if __name__ == "__main__":
    main()
