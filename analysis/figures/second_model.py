"""Accuracy against the budget on the second model, one panel for each image size."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.shared import style
from analysis.figures.shared.panels import draw_panel

INPUTS = ("second_model.csv",)
_LEGEND_COLUMNS = 4


def draw(results: Path) -> Figure:
    """Every method with its interval, the full model as a band.

    Args:
        results: folder with second_model.csv.
    """
    table = pd.read_csv(results / "second_model.csv")
    table = table[(table["type"] == "all") & table["accuracy"].notna()]
    methods, sizes = style.ordered(table["method"]), sorted(table["image_size"].unique(), reverse=True)
    figure = style.new_figure(style.PAGE_WIDTH, 2.2 + style.legend_height(methods, _LEGEND_COLUMNS))
    for axes, size in zip(figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0], sizes, strict=True):
        rows = table[table["image_size"] == size]
        draw_panel(axes, rows, "percent")
        tokens = rows.loc[rows["method"] == "full", "mean_visual_tokens"].iloc[0]
        axes.set_title(f"{rows['model'].iloc[0]}, {size} x {size} pixels, {tokens:.0f} visual tokens")
    figure.supxlabel("Budget (% of the visual tokens, mean over decoder layers)", fontsize=7)
    figure.supylabel("Accuracy (%), 95% interval", fontsize=7)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure
