"""Accuracy against prefill FLOPs over all questions, every method with its interval."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from analysis.figures.shared import style
from analysis.figures.shared.panels import draw_panel

INPUTS = ("accuracy.csv",)
_LEGEND_COLUMNS = 7


def draw(results: Path) -> Figure:
    """One panel at page width.

    Args:
        results: folder with accuracy.csv.
    """
    accuracy = style.one_model(pd.read_csv(results / "accuracy.csv"))
    accuracy = accuracy[accuracy["type"] == "all"]
    methods = style.ordered(accuracy["method"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.4 + style.legend_height(methods, _LEGEND_COLUMNS))
    axes = figure.subplots()
    draw_panel(axes, accuracy, "flops")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("FLOPs of prefill per question")
    axes.set_ylabel("Accuracy (%), 95% interval")
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure
