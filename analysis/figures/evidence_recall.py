"""Evidence recall against accuracy: every method and budget, by the mean over the decoder layers and at the last."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("evidence_recall.csv",)
_LEGEND_COLUMNS = 7
_PANELS = {
    "recall": "Evidence tokens kept (%), mean over decoder layers",
    "recall_last_layer": "Evidence tokens kept (%), at the last decoder layer",
}


def draw(results: Path) -> Figure:
    """Two panels; lines join the budgets of a method, hollow markers are methods that merge tokens.

    Above each panel stands the rank correlation of recall and accuracy over all points but the full model's.

    Args:
        results: folder with evidence_recall.csv.
    """
    table = pd.read_csv(results / "evidence_recall.csv")
    table = table[table["type"] == "all"]
    methods = style.ordered(table["method"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.9 + style.legend_height(methods, _LEGEND_COLUMNS))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (column, label), letter in zip(panels, _PANELS.items(), "ab", strict=True):
        _draw_panel(axes, table, methods, column)
        axes.set_xlabel(label)
        pruned = table[table["method"] != "full"]
        correlation = pruned[column].corr(pruned["accuracy"], method="spearman")
        style.tag(axes, letter)
        axes.set_title(f"Spearman {correlation:.2f} over {len(pruned)} points", loc="right")
    panels[0].set_ylabel("Accuracy (%), 95% interval")
    style.legend(figure, methods, _LEGEND_COLUMNS)
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, methods: list[str], column: str) -> None:
    for method in methods:
        look = style.look(method)
        rows = table[table["method"] == method].sort_values("budget")
        x, x_low, x_high = (100 * rows[f"{column}{end}"] for end in ("", "_low", "_high"))
        y, y_low, y_high = (100 * rows[f"accuracy{end}"] for end in ("", "_low", "_high"))
        axes.errorbar(
            x, y, xerr=[x - x_low, x_high - x], yerr=[y - y_low, y_high - y], color=look.colour, linestyle=look.line,
            marker=look.marker, linewidth=0.7, elinewidth=0.4,
            markerfacecolor="white" if (rows["merged"] > 0).any() else look.colour,
        )  # fmt: skip
