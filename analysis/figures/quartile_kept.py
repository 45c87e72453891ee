"""Accuracy when only one quartile of the token positions survives from a decoder layer on."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style
from analysis.figures.shared.panels import COLOURS, draw_lines

INPUTS = ("quartile_kept.csv",)
PUBLISHED = Path("data/published/attention_shift.csv")
_METRIC = "mean of GQA, TextVQA, POPE, MME/20"


def draw(results: Path, published: Path = PUBLISHED) -> Figure:
    """(a) Our model, by layer; (b) the published values of another model on other benchmarks, in layer 0.

    Args:
        results: folder with quartile_kept.csv.
        published: CSV of published values; see data/published.
    """
    table = pd.read_csv(results / "quartile_kept.csv")
    rows = table[table["type"] == "all"]
    figure = style.new_figure(style.PAGE_WIDTH, 2.3)
    ours, theirs = figure.subplots(1, 2, width_ratios=(2.4, 1))
    draw_lines(ours, rows, "layer", "quartile", "Q{:.0f}")
    ours.set_ylim(0, 103)
    ours.legend(ncols=5, loc="lower right")
    ours.set_xlabel("First decoder layer that sees one quartile only")
    ours.set_ylabel("Accuracy (%), 95% interval")
    style.tag(ours, "a")
    ours.set_title(f"Measured: {rows['model'].iloc[0]}, n = {rows['n'].iloc[0]}")
    _draw_published(theirs, pd.read_csv(published))
    style.tag(theirs, "b")
    return figure


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    values = published[published["metric"] == _METRIC].set_index("method")["value"]
    names = [f"quartile {number}" for number in range(1, 5)]
    axes.bar(range(4), values[names], color=COLOURS[:4], hatch="///", edgecolor="#ffffff", linewidth=0)
    for place, name in enumerate(names):
        axes.annotate(f"{values[name]:g}", (place, values[name]), ha="center", va="bottom", fontsize=6)
    axes.axhline(values["full"], color="#000000", linestyle="--", linewidth=0.7)
    axes.annotate(f"unpruned {values['full']:g}", (3.4, values["full"]), ha="right", va="bottom", fontsize=6)
    axes.set_xticks(range(4), [f"Q{number}" for number in range(1, 5)])
    axes.grid(False, axis="x")
    axes.set_ylim(0, 103)
    axes.set_ylabel("Mean of GQA, TextVQA,\nPOPE and MME/20")
    axes.set_xlabel("Quartile kept from layer 0 on")
    axes.set_title("Published: LLaVA-1.5-7B")
