"""The tables for readers, as CSV, Markdown and LaTeX: `python -m experiments.tables`.

Writes to results/tables/, each as .csv, .md and .tex:

- accuracy: accuracy by method and budget, from results/accuracy.csv;
- budget: visual tokens asked for and measured, from results/predictions/;
- relative_accuracy: published performance relative to the unpruned model, and ours in columns of its own;

and published.md and published.tex: what papers print, from data/published/.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import budget_table, published, table_formats
from experiments.accuracy import ALL, RESULT
from experiments.cells import write_text
from experiments.parameters import Parameters, load_parameters
from experiments.table_formats import Measured

TABLES = Path("results/tables")
FIRST = ("full", "random")
# They look at the answer's evidence or keep everything: no competitors for the best value of a column.
BOUNDS = ("full", "oracle", "oracle_inside")  # what a method can reach at most


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
        "full and the oracles aside. Where no setting of a method comes near a budget: its floor, the fewest mean "
        "visual tokens that it reaches."
    )


def write_all(parameters: Parameters, accuracy: pd.DataFrame, folder: Path = TABLES) -> None:
    """Every table.

    Raises:
        FileNotFoundError, ValueError: predictions or published values are missing or not as expected.
    """
    numbers = budget_table.numbers(parameters.evaluate)
    blocks = {"published.md": published.markdown(), "published.tex": published.latex()}
    caption = accuracy_caption(accuracy, parameters.accuracy.confidence)
    table_formats.write(folder / "accuracy", accuracy_table(accuracy), caption)
    table_formats.write(folder / "budget", budget_table.shown(numbers), budget_table.caption(numbers), numbers=numbers)
    caption = published.beside_ours_caption(accuracy)
    table_formats.write(folder / "relative_accuracy", published.beside_ours(accuracy), caption)
    for name, text in blocks.items():
        write_text(folder / name, text)


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if not RESULT.exists():
        parser.exit(1, f"error: {RESULT} is missing; `dvc repro accuracy` writes it\n")
    try:
        write_all(load_parameters(try_methods=False), pd.read_csv(RESULT))
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
