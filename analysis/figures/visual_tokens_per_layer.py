"""Visual tokens entering each decoder layer, one line a method, one panel a budget."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from analysis.figures.shared import style

INPUTS = ("accuracy.csv",)
_PANELS_A_ROW = 3
_LEGEND_COLUMNS = 7
_APART = 0.9  # points between lines that would lie on one another


def draw(results: Path) -> Figure:
    """One panel a budget; lines that coincide are drawn side by side.

    Args:
        results: folder with accuracy.csv.
    """
    accuracy = style.one_model(pd.read_csv(results / "accuracy.csv"))
    accuracy = accuracy[accuracy["type"] == "all"]
    methods = style.ordered(accuracy["method"])
    budgets = sorted(accuracy.loc[accuracy["method"] != "full", "budget"].unique(), reverse=True)
    rows, columns = -(-len(budgets) // _PANELS_A_ROW), min(_PANELS_A_ROW, len(budgets))
    height = 1.6 * rows + 0.3 + style.legend_height(methods, _LEGEND_COLUMNS)
    figure = style.new_figure(style.PAGE_WIDTH, height)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()

    for axes, budget in zip(grid, budgets, strict=False):
        here = accuracy[(accuracy["budget"] == budget) | (accuracy["method"] == "full")].set_index("method")
        _draw_panel(axes, {name: here.at[name, "visual_tokens_per_layer"] for name in methods if name in here.index})
        axes.set_title(f"Budget {100 * budget:.3g}%")
    for below, axes in enumerate(grid[len(budgets) :], start=len(budgets)):
        axes.set_visible(False)
        grid[below - columns].tick_params(labelbottom=True)
    figure.supxlabel("Decoder layer (lines that coincide are drawn side by side)", fontsize=7)
    figure.supylabel("Visual tokens entering the layer", fontsize=7)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure


def _draw_panel(axes: Axes, counts_of: dict[str, str]) -> None:
    """Lines of one budget. `counts_of`: method -> JSON list of the visual tokens entering each layer."""
    for rank, (method, text) in enumerate(counts_of.items()):
        same = [name for name, other in counts_of.items() if other == text]
        points = _APART * ((len(same) - 1) / 2 - same.index(method))
        apart = ScaledTranslation(points / 72, points / 72, axes.figure.dpi_scale_trans)
        look, counts = style.look(method), json.loads(text)
        (line,) = axes.plot(
            np.arange(len(counts)), counts, color=look.colour, marker=look.marker, markersize=2.8, linewidth=0.8,
            markevery=(rank % len(counts), len(counts)), drawstyle="steps-mid", clip_on=False,
        )  # fmt: skip
        line.set_transform(axes.transData + apart)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
