"""The tables for readers, as CSV, Markdown and LaTeX: `python -m experiments.tables`.

Writes to results/tables/, each as .csv, .md and .tex:

- accuracy: accuracy by method and budget, from results/accuracy.csv;
- accuracy_several_looks: over the questions that take several looks; without a row where the benchmark has none;
- budget: visual tokens asked for and measured, from results/predictions/;
- relative_accuracy: published performance relative to the unpruned model, and ours in columns of its own;

and published.md and published.tex: what papers print, from data/published/.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import paths
from experiments.recorded.by_type import ALL, SEVERAL_LOOKS
from experiments.recorded.cells import write_text
from experiments.reports import budget, formats, published
from experiments.reports.formats import Measured

TABLES = Path("results/tables")
FIRST = ("full", "random")


def accuracy_table(accuracy: pd.DataFrame, group: str = ALL) -> pd.DataFrame:
    """A group's accuracy in percent with its interval, method x budget; full and random first, the best one marked."""
    of_group = accuracy[accuracy["type"] == group]
    names = list(dict.fromkeys(of_group["method"]))
    names.sort(key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))
    rivals = of_group[competes(of_group)]
    best = rivals.index[rivals["accuracy"] == rivals.groupby("budget")["accuracy"].transform("max")]
    cells = {(row["method"], row["budget"]): _cell(row, number in best) for number, row in of_group.iterrows()}
    budgets = sorted(of_group["budget"].unique(), reverse=True)
    columns = {f"{budget:.1%}": [cells.get((name, budget), "") for name in names] for budget in budgets}
    return pd.DataFrame({"method": names} | columns)


def competes(rows: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a row may be the best of its column: it neither keeps everything nor looks at the answer's evidence."""
    return rows["method"].ne("full") & rows["role"].ne("oracle")


def _cell(row: pd.Series, best: bool) -> Measured | str:
    if not row["feasible"]:
        return f"floor {row['floor']:.1f}"
    value, low, high = (100 * row[name] for name in ("accuracy", "ci_low", "ci_high"))
    return Measured(value, low, high, best=best)


def accuracy_caption(accuracy: pd.DataFrame, confidence: float, group: str = ALL) -> str:
    """What the numbers are, over how many questions of which group, and how sure."""
    measured: Any = accuracy[accuracy["feasible"] & (accuracy["type"] == group)]
    looks = " that take several looks" if group == SEVERAL_LOOKS else ""
    if not len(measured):
        return f"Accuracy: {accuracy['benchmark'].iloc[0]} has no questions{looks}."
    return (
        f"Accuracy in percent of {measured['model'].iloc[0]} on {measured['benchmark'].iloc[0]}, "
        f"n = {measured['n'].max()} questions{looks}, with its {100 * confidence:g}% bootstrap interval in small type, "
        "by budget: mean visual tokens over the decoder layers, as a share of all. Bold: the best method at a budget, "
        "full and the oracles aside. Where no setting of a method comes near a budget: its floor, the fewest mean "
        "visual tokens that it reaches."
    )


def write_all(parameters: Parameters, accuracy: pd.DataFrame, folder: Path = TABLES) -> None:
    """Every table.

    Raises:
        FileNotFoundError, ValueError: predictions or published values are missing or not as expected.
    """
    numbers = budget.numbers(parameters.evaluate)
    blocks = {"published.md": published.markdown(), "published.tex": published.latex()}
    for name, group in (("accuracy", ALL), (f"accuracy_{SEVERAL_LOOKS}", SEVERAL_LOOKS)):
        caption = accuracy_caption(accuracy, parameters.accuracy.confidence, group)
        formats.write(folder / name, accuracy_table(accuracy, group), caption)
    formats.write(folder / "budget", budget.shown(numbers), budget.caption(numbers), numbers=numbers)
    caption = published.beside_ours_caption(accuracy)
    formats.write(folder / "relative_accuracy", published.beside_ours(accuracy), caption)
    for name, text in blocks.items():
        write_text(folder / name, text)


def write(parameters: Parameters) -> None:
    """Every table."""
    write_all(parameters, pd.read_csv(paths.needed(paths.ACCURACY, "accuracy")))


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
