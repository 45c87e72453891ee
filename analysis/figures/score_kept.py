"""Accuracy by the score that chooses the tokens, for each question type."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures.shared import style

INPUTS = ("score_kept.csv",)
PUBLISHED = Path("data/published/selection_score.csv")
_LOOKS = {
    "last": style.SCORES["last"],
    "equi_last": style.SCORES["equi_last"],
    "random": style.look("random"),
    "cls": style.SCORES["cls"],
}
_PUBLISHED = {
    "attention of the last query": "last",
    "attention of the last query without RoPE decay": "equi_last",
    "random": "random",
    "attention of [CLS]": "cls",
}


def draw(results: Path, published: Path = PUBLISHED) -> Figure:
    """(a) Our model, by question type; (b) the published values of another model on other benchmarks.

    Args:
        results: folder with score_kept.csv.
        published: CSV of published values; see data/published.
    """
    table = pd.read_csv(results / "score_kept.csv")
    types = style.ordered_kinds(table["type"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.5)
    ours, theirs = figure.subplots(1, 2, width_ratios=(2.2, 1), sharey=True)
    _draw_measured(ours, table, types)
    style.tag(ours, "a")
    whole = table[table["type"] == "all"]
    keep = whole["keep"].dropna()
    ours.set_title(
        f"Measured: {whole['model'].iloc[0]}, {keep.iloc[0]:.0f} of {whole['mean_visual_tokens'].max():.0f} tokens, "
        f"n = {whole['n'].iloc[0]}"
    )
    _draw_published(theirs, pd.read_csv(published))
    style.tag(theirs, "b")
    theirs.set_title("Published: LLaVA-1.5-7B")
    handles = [Patch(color=look.colour, label=look.label) for look in _LOOKS.values()]
    handles.append(Line2D([], [], color="#000000", linewidth=1.0, label="Unpruned"))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _draw_measured(axes: Axes, table: pd.DataFrame, types: list[str]) -> None:
    for place, (score, look) in enumerate(_LOOKS.items()):
        rows = table[table["score"] == score].set_index("type").loc[types]
        accuracy, low, high = (100 * rows[column] for column in ("accuracy", "ci_low", "ci_high"))
        axes.bar(
            np.arange(len(types)) + _shift(place), accuracy, 0.2, yerr=[accuracy - low, high - accuracy],
            color=look.colour, linewidth=0, error_kw={"elinewidth": 0.6, "capsize": 1.2, "capthick": 0.5},
        )  # fmt: skip
    full = table[table["score"] == "full"].set_index("type").loc[types]
    axes.hlines(100 * full["accuracy"], np.arange(len(types)) - 0.42, np.arange(len(types)) + 0.42, colors="#000000")
    axes.set_xticks(range(len(types)), [kind.replace("_", "\n") for kind in types], rotation=90)
    axes.grid(False, axis="x")
    axes.set_ylim(0, 105)
    axes.set_ylabel("Accuracy (%), 95% interval")


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    published = published.assign(score=published["method"].map(_PUBLISHED))
    values = published.pivot(index="setting", columns="score", values="value").loc[["GQA", "TextVQA", "POPE"]]
    for place, (score, look) in enumerate(_LOOKS.items()):
        axes.bar(np.arange(3) + _shift(place), values[score], 0.2, color=look.colour, hatch="////", edgecolor="#ffffff")
    axes.set_xticks(range(3), values.index)
    axes.grid(False, axis="x")


def _shift(place: int) -> float:
    return 0.2 * (place - (len(_LOOKS) - 1) / 2)
