"""What every figure shares: widths, fonts, and one colour-blind-safe colour, marker and label for each method.

The colours are those of Okabe and Ito, and of Tol's muted scheme. Grey and black mark the references: full, random and
the like. Dashes mark the methods that prune inside the language model, solid lines those that prune before it.
"""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

COLUMN_WIDTH = 3.35  # inches, one column of a two-column paper
PAGE_WIDTH = 6.9  # inches, both columns
PNG_COLOURS = 255

_RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same bytes on every machine
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.0,
    "legend.handletextpad": 0.5,
    "legend.labelspacing": 0.35,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.3,
    "grid.color": "#d9d9d9",
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "pdf.fonttype": 42,  # TrueType, so that text stays text
    "figure.dpi": 100,
    "savefig.dpi": 150,
}


class Look(NamedTuple):
    """How a method appears in every figure."""

    label: str
    colour: str
    marker: str
    line: str | tuple[int, tuple[int, ...]] = "-"


_LOOKS = {
    "full": Look("Full model", "#000000", "D", "--"),
    "random": Look("Random", "#7f7f7f", "x", ":"),
    "random_inside": Look("Random inside the LLM", "#7f7f7f", "x", "--"),
    "grid": Look("Grid", "#a6a6a6", "+", ":"),
    "pool": Look("Pooling", "#5c5c5c", "1", ":"),
    "downsample": Look("Fewer pixels", "#2b2b2b", "s", ":"),
    "oracle": Look("Oracle", "#000000", "*", ":"),
    "oracle_inside": Look("Oracle inside the LLM", "#4d4d4d", "*", "--"),
    "vispruner": Look("VisPruner", "#d55e00", "o"),
    "fastervlm": Look("FasterVLM", "#e69f00", "v"),
    "cdpruner": Look("CDPruner", "#cc79a7", "D"),
    "divprune": Look("DivPrune", "#56b4e9", "P"),
    "visionzip": Look("VisionZip", "#332288", "X"),
    "prumerge": Look("PruMerge", "#882255", "<"),
    "prumerge_plus": Look("PruMerge+", "#aa4499", ">"),
    "tome": Look("ToMe", "#999933", "h"),
    "glimpse": Look("GlimpsePrune", "#661100", "d", "--"),
    "sequential_prune": Look("Sequential Prune", "#0072b2", "s", "--"),
    "fastv": Look("FastV", "#009e73", "^", "--"),
    "sparsevlm": Look("SparseVLM", "#44aa99", "p", "--"),
    "pyramiddrop": Look("PyramidDrop", "#88ccee", "H", "--"),
    "dart": Look("DART", "#cc6677", "8", "--"),
    "vtw": Look("VTW", "#ddcc77", "d", "--"),
    "sequence": Look("Sequence", "#117733", "P", "-."),
}
_FALLBACK_COLOURS = ("#1b7837", "#762a83", "#b35806", "#2166ac", "#8c510a", "#01665e", "#c51b7d", "#4d4d4d")
_FALLBACK_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
_REFERENCES_FIRST = ("full", "oracle", "oracle_inside", "random", "random_inside", "grid", "pool", "downsample")

# Where a method prunes, by its line.
_PLACES = {"-": "Before the LLM", "--": "Inside the LLM", "-.": "Both"}

# Question types in the tables that stand for several or all types.
GROUPS = {"all": "All questions", "several_looks": "Several looks"}

# Attention scores, wherever they appear.
SCORES = {
    "cls": Look("[CLS], vision tower", "#0072b2", "o"),
    "last": Look("Last query", "#d55e00", "s", "--"),
    "equi_last": Look("Last query, RoPE decay removed", "#009e73", "^", "-."),
}


def look(method: str) -> Look:
    """The method's look; a method without one gets a look by its name, the same in every figure and every run."""
    if method in _LOOKS:
        return _LOOKS[method]
    digest = hashlib.sha256(method.encode()).digest()
    colour = _FALLBACK_COLOURS[digest[0] % len(_FALLBACK_COLOURS)]
    marker = _FALLBACK_MARKERS[digest[1] % len(_FALLBACK_MARKERS)]
    return Look(method.replace("_", " "), colour, marker, (0, (3, 1, 1, 1)) if digest[2] % 2 else "-")


def ordered(methods: Iterable[str]) -> list[str]:
    """Methods without repetition: the references first, then the others by label."""
    first = {name: rank for rank, name in enumerate(_REFERENCES_FIRST)}
    return sorted(set(methods), key=lambda name: (first.get(name, len(first)), look(name).label.lower(), name))


def ordered_kinds(kinds: Iterable[str]) -> list[str]:
    """Question types without repetition: the groups first, then the others by name."""
    found = set(kinds)
    return [kind for kind in GROUPS if kind in found] + sorted(found - GROUPS.keys())


@contextmanager
def applied() -> Iterator[None]:
    """The figures' fonts and lines, for as long as the context lasts."""
    with mpl.rc_context(_RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, outside pyplot, so that nothing stays behind."""
    return Figure(figsize=(width, height), layout="constrained")


def grouped(methods: list[str]) -> dict[str, list[str]]:
    """Methods by where they prune, in the order of `ordered`; groups without any are left out.

    A method without a look of its own is in a group apart.
    """
    groups: dict[str, list[str]] = {group: [] for group in ("References", *_PLACES.values(), "Others")}
    for method in ordered(methods):
        place = _PLACES.get(str(_LOOKS[method].line), "Before the LLM") if method in _LOOKS else "Others"
        groups["References" if method in _REFERENCES_FIRST else place].append(method)
    return {group: members for group, members in groups.items() if members}


def _rows(methods: list[str], columns: int) -> int:
    """Rows of the legend without its headings: as few as so many columns allow, each group in columns of its own."""
    sizes = [len(members) for members in grouped(methods).values()]
    allowed, rows = max(columns, len(sizes)), 1
    while sum(math.ceil(size / rows) for size in sizes) > allowed:
        rows += 1
    return rows


def legend_height(methods: list[str], columns: int) -> float:
    """Inches that the legend of these methods takes above the panels."""
    return 0.1 + 0.125 * (_rows(methods, columns) + 1)


def legend(figure: Figure, methods: list[str], columns: int) -> None:
    """Legend of these methods above the panels, grouped by where they prune, in about so many columns."""
    rows = _rows(methods, columns)
    handles: list[Line2D] = []
    for group, members in grouped(methods).items():
        for start in range(0, len(members), rows):
            column = [_heading(group if start == 0 else "")]
            for one in map(look, members[start : start + rows]):
                column.append(Line2D([], [], color=one.colour, marker=one.marker, linestyle=one.line, label=one.label))
            handles += column + [_heading("")] * (rows + 1 - len(column))
    drawn = figure.legend(
        handles=handles, loc="outside upper center", ncols=len(handles) // (rows + 1), columnspacing=0.6
    )
    for text, handle in zip(drawn.get_texts(), handles, strict=True):
        if handle.get_marker() == "None" and handle.get_linestyle() == "None":
            text.set(fontweight="bold", position=(0, 0))


def _heading(text: str) -> Line2D:
    return Line2D([], [], linestyle="None", marker="None", label=text or " ")


def points(axes: Axes, method: str, x: pd.Series, rows: pd.DataFrame) -> None:
    """A method's accuracies in percent, with their intervals, over `x`."""
    one = look(method)
    values, low, high = (100 * rows[column] for column in ("accuracy", "ci_low", "ci_high"))
    axes.errorbar(
        x, values, yerr=[values - low, high - values], color=one.colour, linestyle=one.line, marker=one.marker,
        elinewidth=0.6, capsize=1.2, capthick=0.5,
    )  # fmt: skip


def tag(axes: Axes, letter: str) -> None:
    """Letter of a panel, above its top left corner."""
    axes.set_title(f"({letter})", loc="left", fontweight="bold")


def one_model(accuracy: pd.DataFrame) -> pd.DataFrame:
    """Rows of `accuracy.csv` at reachable budgets; ValueError if they come from several models or benchmarks."""
    for column in ("model", "benchmark"):
        if accuracy[column].nunique() != 1:
            names = ", ".join(map(str, accuracy[column].unique()))
            raise ValueError(f"accuracy.csv must hold one {column} to be drawn, found: {names or 'none'}")
    return accuracy[accuracy["feasible"].astype(str).str.lower() == "true"].dropna(subset=["accuracy"])


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `name`.pdf and `name`.png, the same bytes for the same figure; both appear whole or not at all.

    The PNG, which git keeps, has PNG_COLOURS colours: less than half of the size, next to no difference to the eye.
    """
    folder.mkdir(parents=True, exist_ok=True)
    metadata: dict[str, dict[str, Any]] = {
        "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
        "png": {"Software": None},
    }
    paths = [folder / f"{name}.{suffix}" for suffix in metadata]
    temporary = [path.with_name(f".{path.name}.tmp") for path in paths]
    try:
        figure.draw_without_rendering()  # a layout settles in two rounds: this one, and the PNG's, which the PDF shares
        for path, suffix in zip(reversed(temporary), reversed(metadata), strict=True):
            figure.savefig(path, format=suffix, metadata=metadata[suffix])
            figure.set_layout_engine("none")
        with Image.open(temporary[1]) as picture:
            few = picture.convert("RGB").quantize(
                PNG_COLOURS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
            )
        few.save(temporary[1], format="PNG", optimize=True)
        for path, final in zip(temporary, paths, strict=True):
            os.replace(path, final)
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)
    return paths
