"""At which decoder layer visual tokens can leave, and what GlimpsePrune gains and loses when trained at that depth."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("ablation/oracle_inside.csv", "ablation/vtw.csv", "glimpse_depth.csv")
_CAP_LINES = ("-", "--", ":", "-.")


def draw(results: Path) -> Figure:
    """Three panels against the first layer after pruning, K + 1.

    (a) accuracy of GlimpsePrune at its tightest cap, of random masks as large as its own without a cap, of the
    evidence alone and of nothing visual from there on;
    (b) GlimpsePrune's FLOPs by cap; (c) its masks' recall and precision of the evidence, without a cap.

    Args:
        results: folder with the CSV files of INPUTS.
    """
    tables = {name: pd.read_csv(results / f"ablation/{name}.csv") for name in ("oracle_inside", "vtw")}
    trained = pd.read_csv(results / "glimpse_depth.csv")
    trained = trained[trained["type"] == "all"].assign(k=lambda rows: rows["reduce_layer"] + 1).sort_values("k")
    figure = style.new_figure(style.PAGE_WIDTH, 2.1 + style.legend_height(["full", "vtw", "glimpse"], 5))
    accuracy, cost, masks = figure.subplots(1, 3)
    for name, table in tables.items():
        rows = table[(table["type"] == "all") & (table["method"] == name)].sort_values("k")
        style.points(accuracy, name, rows["k"], rows)
    tightest = trained[trained["cap"] == trained["cap"].min()]
    style.points(accuracy, "glimpse", tightest["k"], tightest)
    by_lot = trained.dropna(subset="random_accuracy").assign(
        accuracy=lambda rows: rows["random_accuracy"],
        ci_low=lambda rows: rows["random_ci_low"],
        ci_high=lambda rows: rows["random_ci_high"],
    )
    style.points(accuracy, "random_inside", by_lot["k"], by_lot)
    full = tables["vtw"][(tables["vtw"]["type"] == "all") & (tables["vtw"]["method"] == "full")].iloc[0]
    accuracy.axhline(100 * full["accuracy"], color=style.look("full").colour, linestyle="--", linewidth=0.7)
    accuracy.set_ylabel("Accuracy (%), 95% interval")
    _draw_cost(cost, trained)
    _draw_masks(masks, trained[trained["cap"] == trained["cap"].max()])
    for axes, letter in zip((accuracy, cost, masks), "abc", strict=True):
        axes.set_xlabel("First layer after pruning (K + 1)")
        style.tag(axes, letter)
    style.legend(figure, ["full", "oracle_inside", "random_inside", "vtw", "glimpse"], 5)
    return figure


def _draw_cost(axes: Axes, trained: pd.DataFrame) -> None:
    look = style.look("glimpse")
    for (cap, rows), line in zip(trained.groupby("cap", sort=True), _CAP_LINES, strict=False):
        label = "no cap" if cap == 1 else f"cap {100 * float(cap):.3g}%"
        axes.plot(rows["k"], 100 * rows["flops"], color=look.colour, marker=look.marker, linestyle=line, label=label)
    axes.axhline(100, color=style.look("full").colour, linestyle="--", linewidth=0.7)
    axes.set_ylabel("Prefill FLOPs (% of full)")
    axes.legend(loc="lower right")


def _draw_masks(axes: Axes, uncapped: pd.DataFrame) -> None:
    for measure, line, fill in (("recall", "-", "full"), ("precision", "--", "none"), ("kept_share", ":", "full")):
        look, label = style.look("glimpse"), measure.replace("_", " ")
        axes.plot(
            uncapped["k"],
            uncapped[measure],
            color=look.colour,
            marker=look.marker,
            fillstyle=fill,
            linestyle=line,
            label=label,
        )
    axes.set_ylim(0, 1)
    axes.set_ylabel("Masks, no cap")
    axes.legend()
