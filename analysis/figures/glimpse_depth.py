"""At which decoder layer visual tokens can leave: the evidence alone, or nothing visual, from layer K + 1 on."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.figures import style

INPUTS = ("ablation/oracle_inside.csv", "ablation/vtw.csv", "glimpse_masks.csv")


def draw(results: Path) -> Figure:
    """Accuracy against the first layer without the dropped tokens, and against the mean visual tokens that costs.

    GlimpsePrune itself was trained at one depth: its point at the tightest cap stands among them, on its own questions.

    Args:
        results: folder with the CSV files of INPUTS.
    """
    tables = {name: pd.read_csv(results / f"ablation/{name}.csv") for name in ("oracle_inside", "vtw")}
    masks = pd.read_csv(results / "glimpse_masks.csv")
    trained = masks[(masks["type"] == "all") & (masks["cap"] == masks["cap"].min())]
    figure = style.new_figure(style.PAGE_WIDTH, 2.2 + style.legend_height(["full", "vtw", "glimpse"], 4))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, x in zip(panels, ("k", "mean_visual_tokens"), strict=True):
        for name, table in tables.items():
            rows = table[(table["type"] == "all") & (table["method"] == name)].sort_values(x)
            style.points(axes, name, rows[x], rows)
        if x == "mean_visual_tokens":
            style.points(axes, "glimpse", trained[x], trained)
        full = tables["vtw"][(tables["vtw"]["type"] == "all") & (tables["vtw"]["method"] == "full")].iloc[0]
        axes.axhline(100 * full["accuracy"], color=style.look("full").colour, linestyle="--", linewidth=0.7)
    panels[0].set_xlabel("First decoder layer after pruning (K + 1)")
    panels[1].set_xlabel("Mean visual tokens over the decoder layers")
    panels[0].set_ylabel("Accuracy (%), 95% interval")
    style.tag(panels[0], "a")
    style.tag(panels[1], "b")
    style.legend(figure, ["full", "oracle_inside", "vtw", "glimpse"], 4)
    return figure
