"""What numbering the kept tokens anew costs, by question type, for methods that prune before the language model."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.shared import style

METHODS = ("random", "fastervlm", "divprune", "oracle")
INPUTS = tuple(f"ablation/{method}.csv" for method in METHODS)
_MARKS = {"original": ("full", 2.6), "repacked": ("none", 5.0)}  # filled inside hollow where both are alike
_APART = 0.16  # between two methods, of the room of a question type


def draw(results: Path) -> Figure:
    """A panel for each number of tokens kept; filled: in their own places, hollow: re-packed.

    Args:
        results: folder with the CSV files of INPUTS.
    """
    tables = [style.one_model(pd.read_csv(results / name)) for name in INPUTS]
    rows = pd.concat([table[table["method"] != "full"] for table in tables])
    rows = rows.assign(percent=100 * rows["accuracy"])
    kinds = style.ordered_kinds(rows["type"])
    figure = style.new_figure(style.PAGE_WIDTH, 2.3 + style.legend_height(list(METHODS), 4))
    panels = figure.subplots(1, rows["keep"].nunique(), sharey=True, squeeze=False)[0]
    for axes, (keep, kept) in zip(panels, rows.groupby("keep"), strict=True):
        for number, method in enumerate(METHODS):
            look = style.look(method)
            for positions, (fill, size) in _MARKS.items():
                chosen = kept[(kept["method"] == method) & (kept["positions"] == positions)].set_index("type")
                shift = _APART * (number - (len(METHODS) - 1) / 2)
                axes.plot(
                    [place + shift for place in range(len(kinds))], chosen.loc[kinds, "percent"], linestyle="none",
                    marker="o", markersize=size, color=look.colour, fillstyle=fill,
                )  # fmt: skip
        axes.set_xticks(range(len(kinds)), [kind.replace("_", "\n") for kind in kinds], rotation=90)
        axes.set_title(f"{int(keep)} visual tokens kept, n = {kept['n'].max():.0f}, {kept['n'].min():.0f} of a type")
    panels[0].set_ylabel("Accuracy (%)")
    figure.supxlabel("Question type; filled: kept tokens in their own places, hollow: numbered anew", fontsize=7)
    for axes, letter in zip(panels, "abcd", strict=False):
        style.tag(axes, letter)
    style.legend(figure, list(METHODS), 4)
    return figure
