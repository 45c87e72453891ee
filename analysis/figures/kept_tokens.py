"""Kept visual tokens over example images, one column a method, with the evidence boxes."""

import io
import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from PIL import Image

from analysis.figures.shared import style
from analysis.figures.shared.panels import IMAGES, draw_tokens, read_scenes

INPUTS = ("kept_tokens.csv",)
_COLUMNS = 9
_MAX_HEIGHT = 9.0  # inches
_BOX_COLOUR = "#e7298a"
_RIGHT, _WRONG = "#00693e", "#a50f15"


def draw(results: Path, images: Path = IMAGES) -> Figure:
    """Dropped tokens are veiled; a token dropped inside the decoder is veiled by the share of layers it missed.

    Tokens that a method merged are tinted instead, in one colour for each token they went into.

    Below each image stands the method's answer, with a tick or a cross.

    Args:
        results: folder with kept_tokens.csv.
        images: parquet file with the columns id, image (PNG bytes), question and boxes (in 0..1).
    Raises:
        ValueError: an example is not in `images`, or its visual tokens are no square grid.
        FileNotFoundError: `images` is missing.
    """
    kept = pd.read_csv(results / "kept_tokens.csv", keep_default_na=False)
    ids = list(dict.fromkeys(kept["id"].astype(str)))
    scenes = read_scenes(images, ids, "kept_tokens")

    methods = style.ordered(kept["method"])
    rows = -(-len(methods) // _COLUMNS)
    columns = -(-len(methods) // rows)
    height = 0.2 + rows * (style.PAGE_WIDTH / columns + (0.22 if rows > 1 else 0.1))
    ids = ids[: max(int(_MAX_HEIGHT / height), 1)]
    heights = np.full(len(ids), height)
    heights[0] += 0.12  # titles
    heights[-1] += 0.15  # caption
    figure = style.new_figure(style.PAGE_WIDTH, heights.sum())
    parts = figure.subfigures(len(ids), 1, squeeze=False, height_ratios=heights)
    for part, name in zip(parts[:, 0], ids, strict=True):
        here = kept[kept["id"].astype(str) == name].set_index("method")
        _draw_example(part, here, scenes.loc[name], methods, (rows, columns), titles=name == ids[0] or rows > 1)
    budget = 100 * kept.loc[kept["method"] != "full", "budget"].min()
    caption = f"Budget {budget:.3g}% of the visual tokens. Dropped tokens are veiled; frames: evidence boxes."
    if kept["merged_into"].map(json.loads).map(max).ge(0).any():
        caption += " Tinted alike: merged into one token."
    parts[-1, 0].supxlabel(caption, fontsize=7)
    return figure


def _draw_example(
    figure: SubFigure, kept: pd.DataFrame, scene: pd.Series, methods: list[str], shape: tuple[int, int], titles: bool
) -> None:
    picture = Image.open(io.BytesIO(scene["image"]["bytes"])).convert("RGB")
    first = kept.iloc[0]
    kind = first["type"].replace("_", " ").capitalize()
    text = f"{kind}: {scene['question']}  Answer: {first['answer']}"
    figure.suptitle(textwrap.shorten(text, 120), x=0.01, ha="left", fontsize=7)
    panels = figure.subplots(*shape, squeeze=False).flatten()
    for axes, method in zip(panels, methods, strict=False):
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        if titles:
            axes.set_title(style.look(method).label, fontsize=6)
        if method not in kept.index:
            axes.text(0.5, 0.5, "budget not\nreachable", ha="center", va="center", fontsize=6, transform=axes.transAxes)
            continue
        row = kept.loc[method]
        shares_N = np.array(json.loads(row["layers_per_token"])) / row["layers"]
        draw_tokens(axes, picture, shares_N, np.array(json.loads(row["merged_into"])))
        for x0, y0, x1, y1 in scene["boxes"]:
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=_BOX_COLOUR, linewidth=0.9))
        right = str(row["correct"]) == "True"
        answer = textwrap.shorten(str(row["prediction"]) or "(nothing)", 16, placeholder="...")
        axes.set_xlabel(f"{answer} {'✓' if right else '✗'}", fontsize=6, color=_RIGHT if right else _WRONG, labelpad=2)
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
