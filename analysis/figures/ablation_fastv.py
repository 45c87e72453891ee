"""FastV: the layer it prunes at and the fraction that leaves against accuracy, and against the tokens that costs."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.shared import style
from analysis.figures.shared.panels import draw_lines, set_limits

INPUTS = ("ablation/fastv.csv",)


def draw(results: Path) -> Figure:
    """(a) By layer, a line for each fraction; (b) the same settings by their mean visual tokens.

    Args:
        results: folder with ablation/fastv.csv.
    """
    table = pd.read_csv(results / "ablation/fastv.csv")
    rows = table[table["type"] == "all"]
    figure = style.new_figure(style.PAGE_WIDTH, 2.2)
    by_layer, by_tokens = figure.subplots(1, 2, sharey=True)
    draw_lines(by_layer, rows, "k", "r", "R = {:g}")
    draw_lines(by_tokens, rows, "mean_visual_tokens", "r", "R = {:g}", apart=0.0)
    set_limits(by_layer, rows)
    by_layer.set_xlabel("K, decoder layer in front of which tokens leave")
    by_tokens.set_xlabel("Mean visual tokens over the decoder layers")
    by_layer.set_ylabel("Accuracy (%), 95% interval")
    by_layer.set_title(f"{rows['model'].iloc[0]}, n = {rows['n'].max()}")
    by_tokens.set_title("The same settings")
    by_layer.legend(loc="lower right", ncols=2)
    style.tag(by_layer, "a")
    style.tag(by_tokens, "b")
    return figure
