"""How much alike methods see the tokens: rank correlation of their scores, and overlap of what they keep."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("score_correlation.csv",)
_LABELS = {
    "cls": "[CLS] (FasterVLM)",
    "cls_last_layer": "[CLS], last layer (PruMerge)",
    "feature_norm": "Norm of the feature",
    "relevance": "Relevance (CDPruner)",
    "dpp_order": "Order of picks (CDPruner)",
    "diversity_order": "Order of picks (DivPrune)",
    "random": "Random",
    "evidence": "Inside an evidence box",
}


def draw(results: Path) -> Figure:
    """(a) mean rank correlation of scores on the unpruned model; (b) mean overlap of kept tokens, in percent.

    VisPruner's important and VisionZip's dominant tokens have FasterVLM's score.

    Args:
        results: folder with score_correlation.csv.
    """
    table = pd.read_csv(results / "score_correlation.csv")
    figure = style.new_figure(style.PAGE_WIDTH, 3.3)
    left, right = figure.subplots(1, 2)
    spearman, overlap = (table[table["measure"] == measure] for measure in ("spearman", "overlap"))
    scores = list(dict.fromkeys([*spearman["first"], *spearman["second"]]))
    labels = [_LABELS.get(name, f"{style.look(name).label}, first cut") for name in scores]
    _draw_matrix(left, spearman, scores, labels, (-1.0, 1.0), "{:.2f}")
    left.set_title(f"Spearman of scores, n = {spearman['n'].max()}", loc="right")
    methods = style.ordered([*overlap["first"], *overlap["second"]])
    names = [style.look(method).label for method in methods]
    _draw_matrix(right, overlap.assign(mean=100 * overlap["mean"]), methods, names, (0.0, 100.0), "{:.0f}")
    right.set_title(f"Kept in common (%), budget {100 * overlap['budget'].iloc[0]:.3g}%", loc="right")
    style.tag(left, "a")
    style.tag(right, "b")
    return figure


def _draw_matrix(
    axes: Axes, table: pd.DataFrame, names: list[str], labels: list[str], limits: tuple[float, float], form: str
) -> None:
    """The values below the diagonal, each in its cell; white is nothing in common."""
    places = {name: place for place, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for row in table.itertuples():
        one, other = sorted((places[row.first], places[row.second]))
        values[other, one] = row.mean
    low, high = limits
    axes.imshow(values[1:, :-1], cmap="RdBu" if low < 0 else "Blues", vmin=low, vmax=high, interpolation="nearest")
    for (row, column), value in np.ndenumerate(values[1:, :-1]):
        if np.isfinite(value):
            text = form.format(value).replace("-0.00", "0.00").replace("0.", ".")
            colour = "white" if abs(value) > 0.6 * high else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=4.2, color=colour)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_xticks(range(len(names) - 1), labels[:-1], rotation=90, fontsize=5)
    axes.set_yticks(range(len(names) - 1), labels[1:], fontsize=5)
    axes.tick_params(length=0, pad=1.5)
