"""Panels that several figures draw."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from PIL import Image

from analysis.figures.shared import style

# Light to dark, tell apart in grey as well; the four quartiles look as in attention_shift.
COLOURS = ("#fdb863", "#e66101", "#8073ac", "#2d004b", "#01665e", "#4d4d4d")


_MARKERS = "osD^vP"


def draw_lines(axes: Axes, rows: pd.DataFrame, x: str, by: str, label: str, apart: float = 0.05) -> None:
    """A line with intervals for each value of a column, the unpruned model as a band.

    Settings that do not fit the model are crosses at the foot of the panel. Lines are set apart sideways, so that
    intervals do not hide one another.

    Args:
        rows: of one question type, from a table of experiments.asking.grid.
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


IMAGES = Path("data/scenes/evaluation.parquet")


# Of tokens made by merging, taken in turn; a colour means nothing beyond its group.
_TINTS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#332288", "#aa4499", "#44aa99")


_TINT = 0.6


def read_scenes(images: Path, ids: list[str], figure: str) -> pd.DataFrame:
    """Image, question and boxes of some questions, by their id; see `draw` for what is raised."""
    if not images.exists():
        raise FileNotFoundError(f"{figure} needs the images of {images}; run `dvc repro scenes` first")
    scenes = pd.read_parquet(images, columns=["id", "image", "question", "boxes"], filters=[("id", "in", ids)])
    if missing := set(ids) - set(scenes["id"]):
        raise ValueError(f"{figure}.csv shows {', '.join(sorted(missing))}, not in {images}; run `dvc repro` again")
    return scenes.set_index("id")


def draw_tokens(
    axes: Axes, picture: Image.Image, shares_N: np.ndarray, merged_into_N: np.ndarray | None = None
) -> None:
    """The picture over 0..1 in both directions, tokens veiled by the share of layers they did not enter.

    Those that went into a merged token (`merged_into_N` 0 or above) are tinted instead, alike for the same one.
    """
    side = round(len(shares_N) ** 0.5)
    if side * side != len(shares_N):
        raise ValueError(f"kept_tokens draws square grids of visual tokens, got {len(shares_N)} tokens")
    extent = (0.0, 1.0, 1.0, 0.0)
    veil = np.ones((side, side, 4))
    veil[..., 3] = 0.88 * (1 - shares_N.reshape(side, side))
    if merged_into_N is not None:
        merged = merged_into_N.reshape(side, side)
        tints = np.array([to_rgba(colour, _TINT) for colour in _TINTS])
        veil[merged >= 0] = tints[merged[merged >= 0] % len(tints)]
    axes.imshow(picture, extent=extent, interpolation="nearest")
    axes.imshow(veil, extent=extent, interpolation="nearest")
