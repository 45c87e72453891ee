"""Accuracy against the budget: all questions, those with several looks, each type; every method with its interval."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.shared import style
from analysis.figures.shared.panels import draw_panel

INPUTS = ("accuracy.csv",)
_PANELS_A_ROW = 4
_LEGEND_COLUMNS = 7


def draw(results: Path) -> Figure:
    """A panel for all questions, for those with several looks and for each type; the full model is a band across each.

    Points are set apart sideways by at most 4 % of their budget, so that intervals do not hide one another.

    Args:
        results: folder with accuracy.csv.
    """
    accuracy = style.one_model(pd.read_csv(results / "accuracy.csv"))
    types = style.ordered_kinds(accuracy["type"])
    methods = style.ordered(accuracy["method"])
    rows = -(-len(types) // _PANELS_A_ROW)
    columns = min(_PANELS_A_ROW, len(types))
    height = 1.65 * rows + 0.3 + style.legend_height(methods, _LEGEND_COLUMNS)
    figure = style.new_figure(style.PAGE_WIDTH, height)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True).flatten()

    for axes, kind in zip(grid, types, strict=False):
        draw_panel(axes, accuracy[accuracy["type"] == kind], "percent")
        axes.set_title(style.GROUPS.get(kind, kind.replace("_", " ").capitalize()))
    for below, axes in enumerate(grid[len(types) :], start=len(types)):
        axes.set_visible(False)
        grid[below - columns].tick_params(labelbottom=True)
    full = accuracy.loc[accuracy["method"] == "full", "mean_visual_tokens"].max()
    figure.supxlabel(f"Budget (% of {full:.0f} visual tokens, mean over decoder layers)", fontsize=7)
    figure.supylabel("Accuracy (%), 95% interval", fontsize=7)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure
