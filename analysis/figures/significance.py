"""Differences in accuracy between all pairs of methods, one matrix per budget; those that may be chance are white.

Over all questions; results/significance.md has those that take several looks too.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from analysis.figures.shared import style

INPUTS = ("significance.csv",)
_PANELS_A_ROW = 3
_CELL = 0.092  # inches
_MOST = 20.0  # points of accuracy; larger differences look the same
# Blue: the row is better; orange: worse. Both are Okabe and Ito's.
_COLOURS = LinearSegmentedColormap.from_list("difference", ["#d55e00", "#ffffff", "#0072b2"])
_NOT_REACHED = "#d9d9d9"


def draw(results: Path) -> Figure:
    """Row less column in points of accuracy, where the corrected test tells the two apart.

    Args:
        results: folder with significance.csv.
    Raises:
        ValueError: the file holds no pair of methods.
    """
    pairs = pd.read_csv(results / "significance.csv").query("type == 'all'")
    if pairs.empty:
        raise ValueError("significance.csv holds no pair of methods; run `dvc repro significance` with at least two")
    methods = style.ordered([*pairs["first"], *pairs["second"]])
    budgets = sorted(pairs["budget"].unique(), reverse=True)
    columns = min(_PANELS_A_ROW, len(budgets))
    rows = -(-len(budgets) // columns)
    figure = style.new_figure(style.PAGE_WIDTH, rows * (_CELL * len(methods) + 0.25) + 0.75)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    norm = TwoSlopeNorm(0, -_MOST, _MOST)
    for axes, budget in zip(grid, budgets, strict=False):
        image = _draw_matrix(axes, pairs[pairs["budget"] == budget], methods, norm)
        axes.set_title(f"Budget {100 * budget:.3g}%")
    for below, axes in enumerate(grid[len(budgets) :], start=len(budgets)):
        axes.set_visible(False)
        grid[below - columns].tick_params(labelbottom=True)
    bar = figure.colorbar(image, ax=list(grid), shrink=0.5, aspect=30, pad=0.01, extend="both")
    bar.set_label("Row less column, points of accuracy; white: not told apart, grey: not reached", fontsize=6)
    return figure


def _draw_matrix(axes: Axes, pairs: pd.DataFrame, methods: list[str], norm: TwoSlopeNorm) -> AxesImage:
    places = {method: place for place, method in enumerate(methods)}
    points = np.full((len(methods), len(methods)), np.nan)
    for row in pairs.itertuples():
        first, second = places[row.first], places[row.second]
        shown = 100 * row.difference if row.significant else 0.0
        points[first, second], points[second, first] = shown, -shown
    axes.set_facecolor(_NOT_REACHED)
    axes.grid(False)
    labels = [style.look(method).label for method in methods]
    axes.set_xticks(range(len(methods)), labels, rotation=90, fontsize=5)
    axes.set_yticks(range(len(methods)), labels, fontsize=5)
    axes.tick_params(length=0, pad=1.5)
    return axes.imshow(points, cmap=_COLOURS, norm=norm, interpolation="nearest")
