"""Accuracy on the questions that fewer pixels at the same budget answer wrong, and on those that they answer right."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("difficult_questions.csv",)
_LEGEND_COLUMNS = 4
_APART = 0.02  # between two methods, of the budget
_FEWEST = 10  # questions of a group that say something
_GROUPS = {"difficult": "Fewer pixels fail", "easy": "Fewer pixels suffice"}


def draw(results: Path) -> Figure:
    """(a) Difficult questions, (b) easy ones; every method with its interval, where a group has _FEWEST or more.

    Args:
        results: folder with difficult_questions.csv.

    Raises ValueError where no group has that many, as without `downsample` in params.yaml.
    """
    table = pd.read_csv(results / "difficult_questions.csv")
    table = table[table["n"] >= _FEWEST]
    if table.empty:
        raise ValueError(
            f"difficult_questions.csv has no group of {_FEWEST} questions: set second_model.downsample to true in "
            "params.yaml, or take difficult_questions out of figures"
        )
    methods = style.ordered(table["method"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.2 + style.legend_height(methods, _LEGEND_COLUMNS))
    for axes, (group, title) in zip(figure.subplots(1, len(_GROUPS), sharey=True), _GROUPS.items(), strict=True):
        rows = table[table["group"] == group]
        for rank, method in enumerate(methods):
            own = rows[rows["method"] == method].sort_values("budget")
            style.points(axes, method, 100 * own["budget"] * (1 + _APART * (rank - len(methods) / 2)), own)
        axes.set_xscale("log")
        budgets = sorted(table["budget"].unique())
        axes.set_xticks([100 * budget for budget in budgets], [f"{100 * budget:.0f}" for budget in budgets])
        axes.minorticks_off()
        sizes = rows["n"]
        axes.set_title(f"{title}, n = {sizes.min():.0f} to {sizes.max():.0f}" if len(sizes) else title)
    figure.supxlabel("Budget (% of the visual tokens, mean over decoder layers)", fontsize=7)
    figure.supylabel("Accuracy (%), 95% interval", fontsize=7)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure
