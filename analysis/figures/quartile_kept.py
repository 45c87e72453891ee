"""Accuracy when only one quartile of the token positions survives from a decoder layer on."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.figures import style

INPUTS = ("quartile_kept.csv",)
PUBLISHED = Path("data/published/attention_shift.csv")
# Light to dark, tell apart in grey as well; the four quartiles look as in attention_shift.
COLOURS = ("#fdb863", "#e66101", "#8073ac", "#2d004b", "#01665e", "#4d4d4d")
_MARKERS = "osD^vP"
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


def draw_lines(axes: Axes, rows: pd.DataFrame, x: str, by: str, label: str, apart: float = 0.05) -> None:
    """A line with intervals for each value of a column, the unpruned model as a band.

    Settings that do not fit the model are crosses at the foot of the panel. Lines are set apart sideways, so that
    intervals do not hide one another.

    Args:
        rows: of one question type, from a table of experiments.settings.
        x: column along the axis.
        by: column whose values have a line each.
        label: of a line, formatted with its value.
        apart: between neighbouring lines, in units of the axis.
    """
    for _, row in rows[rows[by].isna()].iterrows():
        axes.axhline(100 * row["accuracy"], color="#000000", linestyle="--", linewidth=0.7, label="Unpruned")
        axes.axhspan(100 * row["ci_low"], 100 * row["ci_high"], color="#000000", alpha=0.08, linewidth=0)
    values = sorted(rows[by].dropna().unique())
    for place, value in enumerate(values):
        line = rows[rows[by] == value].sort_values(x)
        here = line[line["feasible"]]
        shift = apart * (place - (len(values) - 1) / 2)
        accuracy, low, high = (100 * here[column] for column in ("accuracy", "ci_low", "ci_high"))
        look: dict[str, Any] = {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}
        axes.errorbar(
            here[x] + shift, accuracy, yerr=[accuracy - low, high - accuracy], label=label.format(value),
            elinewidth=0.6, capsize=1.2, capthick=0.5, **look,
        )  # fmt: skip
        missing = line.loc[~line["feasible"], x].dropna() + shift
        foot = 0.02 + 0.035 * place
        axes.plot(
            missing,
            [foot] * len(missing),
            "x",
            color=look["color"],
            markersize=2.6,
            transform=axes.get_xaxis_transform(),
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def set_limits(axes: Axes, rows: pd.DataFrame) -> None:
    """Accuracies of these settings on the axis, in percent, and room at its foot where some do not fit the model."""
    lowest = 10 * math.floor(10 * rows["ci_low"].min())
    span = 100 - lowest
    axes.set_ylim(lowest - (0 if rows["feasible"].all() else 0.25 * span), 100 + 0.05 * span)


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
