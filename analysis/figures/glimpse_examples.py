"""Two questions about one image: the evidence boxes of each, and the visual tokens that GlimpsePrune keeps for it."""

import io
import json
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from analysis.figures.shared import style
from analysis.figures.shared.panels import IMAGES, draw_tokens, read_scenes

INPUTS = ("glimpse_examples.csv",)
_BOX_COLOUR = "#e7298a"


def draw(results: Path, images: Path = IMAGES) -> Figure:
    """One column an image, one row a question; dropped tokens are veiled, frames are the evidence boxes.

    Args:
        results: folder with glimpse_examples.csv.
        images: parquet file with the columns id, image (PNG bytes), question and boxes (in 0..1).
    Raises:
        ValueError: an example is not in `images`, or its visual tokens are no square grid.
        FileNotFoundError: `images` is missing.
    """
    kept = pd.read_csv(results / "glimpse_examples.csv", keep_default_na=False)
    scenes = read_scenes(images, kept["id"].tolist(), "glimpse_examples")
    columns = [rows for _, rows in kept.groupby("image", sort=True)]
    questions = max(len(rows) for rows in columns)
    width = style.PAGE_WIDTH / len(columns)
    figure = style.new_figure(style.PAGE_WIDTH, questions * (width + 0.35))
    grid = figure.subplots(questions, len(columns), squeeze=False)
    for column, rows in zip(grid.T, columns, strict=True):
        for axes, row in zip(column, rows.itertuples(index=False), strict=False):
            scene = scenes.loc[row.id]
            picture = Image.open(io.BytesIO(scene["image"]["bytes"])).convert("RGB")
            kept_N = np.zeros(row.visual_tokens)
            kept_N[json.loads(row.kept)] = 1
            draw_tokens(axes, picture, kept_N)
            for x0, y0, x1, y1 in scene["boxes"]:
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=_BOX_COLOUR, linewidth=1))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_title("\n".join(textwrap.wrap(scene["question"], 34)), fontsize=6)
            sign = "✓" if str(row.correct) == "True" else "✗"
            axes.set_xlabel(f"{row.prediction} {sign}  kept {100 * row.kept_share:.0f}%", fontsize=6)
    return figure
