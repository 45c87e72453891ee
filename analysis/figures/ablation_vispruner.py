"""VisPruner: share of important tokens against accuracy, for each number of tokens."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator

from analysis.figures.shared import style
from analysis.figures.shared.panels import draw_lines, set_limits

INPUTS = ("ablation/vispruner.csv",)


def draw(results: Path) -> Figure:
    """A line for each number of tokens; at a share of 1 VisPruner is FasterVLM.

    Args:
        results: folder with ablation/vispruner.csv.
    """
    table = pd.read_csv(results / "ablation/vispruner.csv")
    rows = table[table["type"] == "all"]
    figure = style.new_figure(style.COLUMN_WIDTH, 2.3)
    axes = figure.subplots()
    draw_lines(axes, rows, "important_ratio", "keep", "{:.0f} tokens", apart=0.012)
    axes.xaxis.set_major_locator(AutoLocator())
    set_limits(axes, rows)
    axes.set_xlabel("Share of the tokens chosen by [CLS] attention")
    axes.set_ylabel("Accuracy (%), 95% interval")
    axes.set_title(f"{rows['model'].iloc[0]}, n = {rows['n'].max()}")
    axes.legend(loc="lower right", ncols=2)
    return figure
