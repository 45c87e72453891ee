"""Accuracy against what a prefill costs, in FLOPs and in measured time, with the Pareto fronts."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style

INPUTS = ("pareto.csv",)
_LEGEND_COLUMNS = 7
_COSTS = {"flops": "FLOPs of prefill (% of the full model's)", "latency": "Time of prefill (% of the full model's)"}


def draw(results: Path) -> Figure:
    """(a) FLOPs, (b) time; points on the front are large and joined by a line, intervals are theirs alone.

    Args:
        results: folder with pareto.csv.
    """
    table = pd.read_csv(results / "pareto.csv")
    methods = style.ordered(table["method"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.7 + style.legend_height(methods, _LEGEND_COLUMNS))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (cost, label), letter in zip(panels, _COSTS.items(), "ab", strict=True):
        _draw_panel(axes, table.dropna(subset=[f"{cost}_ratio"]), methods, cost)
        axes.set_xlabel(label)
        style.tag(axes, letter)
    panels[0].set_ylabel("Accuracy (%)")
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
