"""In which decoder layers a model reads the image: accuracy when every visual token leaves in front of one of them."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style

INPUTS = ("reading_depth.csv",)


def draw(results: Path) -> Figure:
    """(a) All question types together, with intervals; (b) each type.

    Args:
        results: folder with reading_depth.csv.
    """
    table = style.one_model(pd.read_csv(results / "reading_depth.csv")).sort_values("layer")
    figure = style.new_figure(style.PAGE_WIDTH, 2.6)
    together, apart = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.5))
    rows = table[table["type"] == "all"]
    accuracy, low, high = (100 * rows[column] for column in ("accuracy", "ci_low", "ci_high"))
    together.fill_between(rows["layer"], low, high, color="#000000", alpha=0.12, linewidth=0)
    together.plot(rows["layer"], accuracy, color="#000000", marker="o")
    together.set_ylabel("Accuracy (%), 95% interval")
    together.set_ylim(0, 103)
    together.set_title(f"All types: {rows['model'].iloc[0]}, n = {rows['n'].iloc[0]}")
    _draw_types(apart, table[table["type"] != "all"])
    for axes, letter in zip((together, apart), "ab", strict=True):
        axes.set_xlabel("First decoder layer without visual tokens")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style.tag(axes, letter)
    return figure


def _draw_types(axes: Axes, table: pd.DataFrame) -> None:
    kinds = sorted(table["type"].unique())
    colours = dict(zip(kinds, sns.color_palette("colorblind", len(kinds)), strict=True))
    for kind, rows in table.groupby("type"):
        axes.plot(
            rows["layer"], 100 * rows["accuracy"], color=colours[kind], linewidth=0.9, marker="o", markersize=2,
            label=str(kind).replace("_", " "),
        )  # fmt: skip
    axes.legend(ncols=2, loc="lower right")
    axes.set_title(f"Each type, n = {int(table['n'].min())} or more")
