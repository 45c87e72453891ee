"""Accuracy on the questions that fewer pixels at the same budget answer wrong, and on those that they answer right."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.accuracy_against_budget import draw_panel

INPUTS = ("difficult_questions.csv",)
_LEGEND_COLUMNS = 4
_FEWEST = 10  # questions of a group that say something
_GROUPS = {"difficult": "Fewer pixels fail", "easy": "Fewer pixels suffice"}


def draw(results: Path) -> Figure:
    """(a) Difficult questions, (b) easy ones; every method with its interval, where a group has _FEWEST or more.

    Args:
        results: folder with difficult_questions.csv.
    """
    table = pd.read_csv(results / "difficult_questions.csv")
    table = table[table["n"] >= _FEWEST]
    methods = style.ordered(table["method"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.2 + style.legend_height(methods, _LEGEND_COLUMNS))
    for axes, (group, title) in zip(figure.subplots(1, len(_GROUPS), sharey=True), _GROUPS.items(), strict=True):
        rows = table[table["group"] == group]
        draw_panel(axes, rows, "percent")
        sizes = rows["n"]
        axes.set_title(f"{title}, n = {sizes.min():.0f} to {sizes.max():.0f}" if len(sizes) else title)
    figure.supxlabel("Budget (% of the visual tokens, mean over decoder layers)", fontsize=7)
    figure.supylabel("Accuracy (%), 95% interval", fontsize=7)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure
