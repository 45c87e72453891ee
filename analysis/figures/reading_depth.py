"""In which decoder layers a model reads the image: accuracy when every visual token leaves in front of one of them."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures.shared import style

INPUTS = ("reading_depth.csv",)
_GROUPS = {"all": "#000000", "several_looks": "#d55e00"}

_MARKERS = "osD^vPX"


def draw(results: Path) -> Figure:
    """(a) All questions and, where there are any, those with several looks, with intervals; (b) each type.

    Args:
        results: folder with reading_depth.csv.
    """
    table = style.one_model(pd.read_csv(results / "reading_depth.csv")).sort_values("layer")
    figure = style.new_figure(style.PAGE_WIDTH, 2.6)
    together, apart = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.5))
    for kind, colour in _GROUPS.items():
        _draw_group(together, table[table["type"] == kind], style.GROUPS[kind], colour)
    everything = table[table["type"] == "all"].iloc[0]
    together.set_ylabel("Accuracy (%), 95% interval")
    together.set_ylim(0, 103)
    together.set_title(f"{everything['model']}, n = {everything['n']}")
    _draw_types(apart, table[~table["type"].isin(style.GROUPS)])
    for axes, letter in zip((together, apart), "ab", strict=True):
        axes.set_xlabel("First decoder layer without visual tokens")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.tag(axes, letter)
    return figure


def _draw_group(axes: Axes, rows: pd.DataFrame, label: str, colour: str) -> None:
    """A line with its interval and its n; nothing for a group without rows."""
    if rows.empty:
        return
    accuracy, low, high = (100 * rows[column] for column in ("accuracy", "ci_low", "ci_high"))
    axes.fill_between(rows["layer"], low, high, color=colour, alpha=0.12, linewidth=0)
    axes.plot(rows["layer"], accuracy, color=colour, marker="o", label=f"{label}, n = {rows['n'].iloc[0]}")
    axes.legend(loc="lower right")


def _draw_types(axes: Axes, table: pd.DataFrame) -> None:
    kinds = sorted(table["type"].unique())
    colours = sns.husl_palette(len(kinds), l=0.5)
    for place, (kind, colour) in enumerate(zip(kinds, colours, strict=True)):
        rows = table[table["type"] == kind]
        axes.plot(
            rows["layer"], 100 * rows["accuracy"], color=colour, linewidth=0.9, marker=_MARKERS[place % len(_MARKERS)],
            markersize=2.5, label=kind.replace("_", " "),
        )  # fmt: skip
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.set_title(f"Each type, n = {int(table['n'].min())} or more")
