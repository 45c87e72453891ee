"""Accuracy against the budget, overall and for each question type, every method with its interval."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures import style

INPUTS = ("accuracy.csv",)
_PANELS_A_ROW = 4
_LEGEND_COLUMNS = 7


def draw(results: Path) -> Figure:
    """One panel for all questions and one for each type; the full model is a band across each.

    Points are set apart sideways by at most 4 % of their budget, so that intervals do not hide one another.

    Args:
        results: folder with accuracy.csv.
    """
    accuracy = style.one_model(pd.read_csv(results / "accuracy.csv"))
    types = ["all", *sorted(set(accuracy["type"]) - {"all"})]
    methods = style.ordered(accuracy["method"])
    rows = -(-len(types) // _PANELS_A_ROW)
    columns = min(_PANELS_A_ROW, len(types))
    height = 1.65 * rows + 0.3 + style.legend_height(methods, _LEGEND_COLUMNS)
    figure = style.new_figure(style.PAGE_WIDTH, height)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True).flatten()

    for axes, kind in zip(grid, types, strict=False):
        draw_panel(axes, accuracy[accuracy["type"] == kind], "percent")
        axes.set_title("All questions" if kind == "all" else kind.replace("_", " ").capitalize())
    for below, axes in enumerate(grid[len(types) :], start=len(types)):
        axes.set_visible(False)
        grid[below - columns].tick_params(labelbottom=True)
    full = accuracy.loc[accuracy["method"] == "full", "mean_visual_tokens"].max()
    figure.supxlabel(f"Budget (% of {full:.0f} visual tokens, mean over decoder layers)", fontsize=7)
    figure.supylabel("Accuracy (%), 95% interval", fontsize=7)
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure


def draw_panel(axes: Axes, accuracy: pd.DataFrame, x: str) -> None:
    """Every method's accuracy in percent with its interval, the full model's as a point and a band across the panel.

    Args:
        accuracy: rows of one question type.
        x: "percent" of the full model's visual tokens, or a column of `accuracy`.
    """
    full_tokens = accuracy.loc[accuracy["method"] == "full", "mean_visual_tokens"].max()
    accuracy = accuracy.assign(percent=100 * accuracy["mean_visual_tokens"] / full_tokens)
    methods = style.ordered(accuracy["method"])
    for rank, method in enumerate(methods):
        look = style.look(method)
        rows = accuracy[accuracy["method"] == method].sort_values(x)
        values, low, high = (100 * rows[column] for column in ("accuracy", "ci_low", "ci_high"))
        if method == "full":
            axes.axhline(values.iloc[-1], color=look.colour, linestyle=look.line, linewidth=0.7)
            axes.axhspan(low.iloc[-1], high.iloc[-1], color=look.colour, alpha=0.1, linewidth=0)
        apart = 1 + 0.08 * (rank / len(methods) - 0.5) if x == "percent" and method != "full" else 1.0
        axes.errorbar(
            rows[x] * apart, values, yerr=[values - low, high - values], color=look.colour, linestyle=look.line,
            marker=look.marker, elinewidth=0.6, capsize=1.2, capthick=0.5,
        )  # fmt: skip
    axes.set_xscale("log")
    if x == "percent":
        axes.xaxis.set_major_locator(FixedLocator(sorted(100 * accuracy["budget"].unique())))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.tick_params(axis="x", labelrotation=45)
