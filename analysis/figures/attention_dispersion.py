"""Dispersion: how few visual tokens hold how much attention, by [CLS], last query, and last query without RoPE."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.figures.shared import style

INPUTS = ("attention_dispersion.csv",)
_BINS = 50
_NOTHING = 1e-12  # an empty bin, far below a logarithmic axis


def draw(results: Path) -> Figure:
    """(a) CDFs over tokens sorted by attention; (b) densities of attention / largest attention, logarithmic.

    Args:
        results: folder with attention_dispersion.csv.
    """
    dispersion = pd.read_csv(results / "attention_dispersion.csv")
    figure = style.new_figure(style.COLUMN_WIDTH, 3.9)
    upper, lower = figure.subplots(2, 1)
    for score, look in style.SCORES.items():
        here = dispersion[dispersion["score"] == score].sort_values("x")
        cdf, density = (here[here["curve"] == curve] for curve in ("cdf", "density"))
        lines = {"color": look.colour, "linestyle": look.line, "label": look.label}
        upper.plot([0, *cdf["x"]], [0, *cdf["y"]], **lines)
        # Fewer bins than the CSV file has: far from zero, most of its bins hold one value or none.
        coarse = density.groupby(np.arange(len(density)) * _BINS // len(density))[["x", "y"]].mean()
        lower.plot(coarse["x"], coarse["y"].clip(lower=_NOTHING), **lines)
    upper.plot([0, 1], [0, 1], color="#4d4d4d", linestyle=":", linewidth=0.8, label="Uniform")
    upper.set_xlabel("Visual tokens, highest attention first")
    upper.set_ylabel("Share of attention")
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    upper.set_xlim(0, 1)
    upper.set_ylim(0, 1.02)
    upper.legend(loc="lower right")
    lower.set_yscale("log")
    lowest = [line.get_ydata()[line.get_ydata() > _NOTHING].min() for line in lower.lines]
    lower.set_ylim(bottom=min(lowest) / 2)
    lower.set_xlim(0, 1)
    lower.set_xlabel("Attention / largest attention over all questions")
    lower.set_ylabel("Density")
    style.tag(upper, "a")
    style.tag(lower, "b")
    return figure
