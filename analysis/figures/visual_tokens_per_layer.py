"""Visual tokens entering each decoder layer, one line a method, one panel a budget."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style
from analysis.figures.accuracy_against_budget import handles

INPUTS = ("accuracy.csv",)
_PANELS_A_ROW = 3


def draw(results: Path) -> Figure:
    """Methods that agree lie on one another: each is thinner than the one before, its markers at other layers.

    Args:
        results: folder with accuracy.csv.
    """
    accuracy = style.one_model(pd.read_csv(results / "accuracy.csv"))
    accuracy = accuracy[accuracy["type"] == "all"]
    methods = style.ordered(accuracy["method"])
    full = accuracy[accuracy["method"] == "full"]
    budgets = sorted(accuracy.loc[accuracy["method"] != "full", "budget"].unique(), reverse=True)
    rows, columns = -(-len(budgets) // _PANELS_A_ROW), min(_PANELS_A_ROW, len(budgets))
    figure = style.new_figure(style.PAGE_WIDTH, 1.5 * rows + 0.3 + 0.13 * -(-len(methods) // 6))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()

    for axes, budget in zip(grid, budgets, strict=False):
        here = pd.concat([full, accuracy[(accuracy["budget"] == budget) & (accuracy["method"] != "full")]])
        for method, counts in zip(here["method"], here["visual_tokens_per_layer"].map(json.loads), strict=True):
            look = style.look(method)
            rank = methods.index(method)
            every = max(len(counts) // 2, 1)
            axes.plot(
                np.arange(len(counts)), counts, color=look.colour, linestyle=look.line, marker=look.marker,
                markevery=(rank % every, every), drawstyle="steps-mid", linewidth=2.2 - 1.5 * rank / len(methods),
            )  # fmt: skip
        axes.set_title(f"Budget {100 * budget:.3g}%")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
    for axes in grid[len(budgets) :]:
        axes.set_visible(False)
    figure.supxlabel("Decoder layer", fontsize=7)
    figure.supylabel("Visual tokens entering the layer", fontsize=7)
    figure.legend(handles=handles(methods), loc="outside upper center", ncols=6)
    return figure
