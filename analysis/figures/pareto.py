"""Accuracy against what a prefill costs, in FLOPs and in measured time, with the Pareto fronts."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("pareto.csv",)
_LEGEND_COLUMNS = 7
_GROUPS = {"all": "Accuracy (%)", "several_looks": "Accuracy, several looks (%)"}
_COSTS = {"flops": "FLOPs of prefill (% of the full model's)", "latency": "Time of prefill (% of the full model's)"}


def draw(results: Path) -> Figure:
    """(a) FLOPs, (b) time; below them the same for the questions that take several looks, where there are such.

    Points on the front are large and joined by a line, intervals are theirs alone.

    Args:
        results: folder with pareto.csv.
    """
    table = pd.read_csv(results / "pareto.csv")
    methods = style.ordered(table["method"])
    groups = [kind for kind in _GROUPS if (table["type"] == kind).any()]
    figure = style.new_figure(style.PAGE_WIDTH, 2.5 * len(groups) + style.legend_height(methods, _LEGEND_COLUMNS))
    panels = figure.subplots(len(groups), 2, sharey="row", sharex="col", squeeze=False)
    letters = iter("abcd")
    for row, kind in zip(panels, groups, strict=True):
        of_kind = table[table["type"] == kind]
        for axes, cost in zip(row, _COSTS, strict=True):
            _draw_panel(axes, of_kind.dropna(subset=[f"{cost}_ratio"]), methods, cost)
            style.tag(axes, next(letters))
        row[0].set_ylabel(_GROUPS[kind])
    for axes, label in zip(panels[-1], _COSTS.values(), strict=True):
        axes.set_xlabel(label)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, methods: list[str], cost: str) -> None:
    column, on_front = f"{cost}_ratio", f"on_{cost}_front"
    front = table[table[on_front]].sort_values([column, "accuracy"])
    x, y = 100 * front[column], 100 * front["accuracy"]
    axes.step(x, y, where="post", color="#bdbdbd", linewidth=2.5, zorder=1, label="Pareto front")
    y_ends = [y - 100 * front["ci_low"], 100 * front["ci_high"] - y]
    x_ends = None
    if f"{column}_low" in front:
        x_ends = [x - 100 * front[f"{column}_low"], 100 * front[f"{column}_high"] - x]
    axes.errorbar(x, y, xerr=x_ends, yerr=y_ends, fmt="none", ecolor="#8c8c8c", elinewidth=0.6, zorder=1.5)
    for method in methods:
        look = style.look(method)
        rows = table[table["method"] == method].sort_values("budget")
        axes.plot(
            100 * rows[column], 100 * rows["accuracy"], color=look.colour, linestyle=look.line, marker=look.marker,
            linewidth=0.5, markersize=2.6,
        )  # fmt: skip
        best = rows[rows[on_front]]
        axes.plot(100 * best[column], 100 * best["accuracy"], color=look.colour, linestyle="", marker=look.marker, ms=5)
