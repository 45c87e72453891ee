"""Attention shift: where in the image, by token position, the decoder's attention goes, beside the [CLS] attention."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from analysis.figures.shared import style

INPUTS = ("attention_shift.csv", "attention_quartiles.csv", "attention_selection.csv")
_QUERIES = {
    "image": "Image queries",
    "text": "Text queries",
    "full": "All queries",
    "last": "Last query",
    "equi_last": "Last query,\nno RoPE",
}
_QUARTILE_COLOURS = ("#fdb863", "#e66101", "#8073ac", "#2d004b")  # light to dark, tell apart in grey as well
_MAPS_A_ROW = 8
_MAP_RANGE = (0.25, 4.0)
_PROFILE_RANGE = (1 / 8, 16)


def draw(results: Path) -> Figure:
    """(a) Which positions each score selects; (b) the quartiles' shares by layer; (c) profiles; (d) maps by layer.

    Args:
        results: folder with the three CSV files of `INPUTS`.
    """
    shift, quartiles, selection = (pd.read_csv(results / name) for name in INPUTS)
    figure = style.new_figure(style.PAGE_WIDTH, 7.2)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(1.7, 1.5, 4.0))
    selecting, sharing = top.subplots(1, 2, width_ratios=(1.5, 1))
    _draw_selection(selecting, selection, shift)
    _draw_quartiles(sharing, quartiles)
    _draw_profiles(middle, shift)
    _draw_maps(bottom, shift)
    return figure


def _draw_selection(axes: Axes, selection: pd.DataFrame, shift: pd.DataFrame) -> None:
    last = selection[selection["score"] == "last"]
    layer, keep, tokens = int(last["layer"].iloc[0]), int(last["keep"].iloc[0]), len(last)
    look = style.SCORES["last"]
    axes.bar(last["token"], last["frequency"], width=1.0, color=look.colour, alpha=0.45, linewidth=0)
    axes.set_xlim(-0.5, tokens - 0.5)
    axes.set_xlabel("Visual token (raster order)")
    axes.set_ylabel(f"Questions in which it is\namong the top {keep} (bars)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for edge in np.arange(1, 4) * tokens / 4 - 0.5:
        axes.axvline(edge, color="#4d4d4d", linestyle="--", linewidth=0.6)
    profile = shift[(shift["query"] == "last") & (shift["layer"] == layer)].sort_values("token")
    second = axes.twinx()
    second.plot(profile["token"], profile["attention"], color="#000000", linewidth=0.8)
    second.set_ylabel("Mean attention (line)")
    second.set_ylim(bottom=0)
    second.grid(False)
    second.spines["right"].set_visible(True)
    second.ticklabel_format(axis="y", scilimits=(-2, 3))
    style.tag(axes, "a")
    axes.set_title(f"Last query, decoder layer {layer}; dashed: quartiles")


def _draw_quartiles(axes: Axes, quartiles: pd.DataFrame) -> None:
    for quartile, marker, colour in zip(range(1, 5), "osD^", _QUARTILE_COLOURS, strict=True):
        rows = quartiles[quartiles["quartile"] == quartile].sort_values("layer")
        axes.plot(rows["layer"], rows["share"], color=colour, marker=marker, label=f"Q{quartile}")
    axes.axhline(0.25, color="#4d4d4d", linestyle=":", linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("Decoder layer")
    axes.set_ylabel("Share of text-to-\nvisual attention")
    axes.legend(ncols=4, loc="upper center")
    axes.set_ylim(top=axes.get_ylim()[1] * 1.2)
    style.tag(axes, "b")
    axes.set_title("Quartiles of token position")


def _draw_profiles(figure: SubFigure, shift: pd.DataFrame) -> None:
    """Attention relative to the mean over visual tokens, one line a layer, smoothed over one row of the raster."""
    panels = figure.subplots(1, len(_QUERIES), sharey=True)
    count = int(shift["layer"].max()) + 1
    colours = ScalarMappable(Normalize(0, count), colormaps["viridis"])
    for axes, (query, label) in zip(panels, _QUERIES.items(), strict=True):
        for layer in range(count):
            values = _profile(shift, query, layer)
            axes.plot(_smooth(values / values.mean()), color=colours.to_rgba(layer), linewidth=0.7)
        axes.axhline(1.0, color="#4d4d4d", linestyle=":", linewidth=0.8)
        axes.set_title(label.replace("\n", " "))
        axes.set_xlabel("Visual token")
    panels[0].set_ylabel("Attention / mean\nover visual tokens")
    panels[0].set_yscale("log", base=2)
    panels[0].set_ylim(*_PROFILE_RANGE)
    panels[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    style.tag(panels[0], "c")
    bar = figure.colorbar(colours, ax=panels, fraction=0.02, pad=0.01, boundaries=np.arange(count + 1))
    bar.set_ticks(np.unique([0, count // 2, count - 1]) + 0.5, labels=map(str, np.unique([0, count // 2, count - 1])))
    bar.set_label("Decoder layer")


def _draw_maps(figure: SubFigure, shift: pd.DataFrame) -> None:
    """Attention of some layers over the image, relative to the mean of the map; [CLS] at the right."""
    count = int(shift["layer"].max()) + 1
    layers = np.unique(np.linspace(0, count - 1, min(count, _MAPS_A_ROW)).round().astype(int))
    panels = figure.subplots(len(_QUERIES), len(layers) + 1, squeeze=False)
    norm = LogNorm(*_MAP_RANGE)
    for row, (query, label) in zip(panels, _QUERIES.items(), strict=True):
        row[0].set_ylabel(label)
        for axes, layer in zip(row, layers, strict=False):
            image = _draw_map(axes, _profile(shift, query, layer), norm)
    for axes, layer in zip(panels[0], layers, strict=False):
        axes.set_title(f"Layer {layer}")
    _draw_map(panels[0, -1], _profile(shift, "cls", None), norm)
    panels[0, -1].set_title("[CLS]")
    for axes in panels[1:, -1]:
        axes.set_visible(False)
    figure.text(0.0, 1.0, "(d)", fontweight="bold", va="top")
    low, high = _MAP_RANGE
    bar = figure.colorbar(image, ax=panels[1:, -1], fraction=0.35, ticks=[low, 0.5, 1, 2, high], extend="both")
    bar.ax.set_yticklabels([f"{low:g}x", "0.5x", "mean", "2x", f"{high:g}x"])
    bar.ax.minorticks_off()
    bar.set_label("Attention / mean over visual tokens")


def _draw_map(axes: Axes, values: np.ndarray, norm: LogNorm) -> AxesImage:
    side = round(len(values) ** 0.5)
    shape = (side, side) if side * side == len(values) else (1, len(values))
    relative = np.clip(values / values.mean(), 1e-6, None).reshape(shape)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return axes.imshow(
        relative, norm=norm, cmap="PuOr_r", interpolation="nearest", aspect="auto" if shape[0] == 1 else 1
    )


def _profile(shift: pd.DataFrame, query: str, layer: int | None) -> np.ndarray:
    """Attention by token of one kind of query; `layer` is None for [CLS], which has no decoder layer."""
    at_layer = shift["layer"].isna() if layer is None else shift["layer"] == layer
    return shift[(shift["query"] == query) & at_layer].sort_values("token")["attention"].to_numpy()


def _smooth(values: np.ndarray) -> np.ndarray:
    """Running mean over about one row of the raster, so that the trend with position shows."""
    width = max(round(len(values) ** 0.5), 1)
    weights = np.convolve(np.ones(len(values)), np.ones(width), mode="same")
    return np.convolve(values, np.ones(width), mode="same") / weights
