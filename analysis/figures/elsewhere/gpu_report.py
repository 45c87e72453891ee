"""Prefill time on a GPU by method and model, beside the full model and a prompt as short from the start.

python -m analysis.figures.elsewhere.gpu_report [RESULTS [FIGURES]]
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style
from analysis.figures.shared.panels import COLOURS

INPUTS = ("gpu_report.csv",)
REFERENCES = ("full", "native_short")


def draw(results: Path) -> Figure:
    """One panel a model: medians with quartiles by method, a colour for each number kept; full and short as lines.

    Args:
        results: folder with gpu_report.csv.

    Raises:
        ValueError: nothing was measured.
    """
    table = pd.read_csv(results / "gpu_report.csv").dropna(subset=["prefill_ms"])
    if not len(table):
        raise ValueError("gpu_report.csv holds no time: nothing was measured")
    methods = style.ordered(table.loc[~table["method"].isin(REFERENCES), "method"])
    models = list(table["model"].unique())
    figure = style.new_figure(style.PAGE_WIDTH, 1.1 + 0.17 * len(methods))
    for axes, model in zip(figure.subplots(1, len(models), sharey=True, squeeze=False)[0], models, strict=True):
        _draw_panel(axes, table[table["model"] == model], methods)
    setting = table.iloc[0]
    figure.suptitle(f"Random weights; {setting['device']}, {setting['dtype']}; median and quartiles", fontsize=6)
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, methods: list[str]) -> None:
    full = table[table["method"] == "full"]
    axes.axvline(full["prefill_ms"].max(), color=style.look("full").colour, linestyle="--", linewidth=0.7, label="full")
    keeps = sorted(table["keep"].dropna().unique())
    for place, keep in enumerate(keeps):
        rows, colour = table[table["keep"] == keep].set_index("method"), COLOURS[place % len(COLOURS)]
        if "native_short" in rows.index:
            axes.axvline(rows.loc["native_short", "prefill_ms"], color=colour, linestyle=":", linewidth=0.9)
        rows = rows.loc[[method for method in methods if method in rows.index]]
        values, low, high = (rows[f"prefill_ms{end}"] for end in ("", "_low", "_high"))
        places = [methods.index(method) + 0.22 * (place - (len(keeps) - 1) / 2) for method in rows.index]
        axes.errorbar(
            values, places, xerr=[values - low, high - values], color=colour, linestyle="none", marker="o",
            elinewidth=0.6, capsize=1.2, capthick=0.5, label=f"{keep:.0f} tokens",
        )  # fmt: skip
    first = table.iloc[0]
    axes.set(xlabel=f"Prefill, ms (batch {first['batch']})")
    axes.set_title(f"{first['model']}, {first['visual_tokens']} visual tokens", fontsize=6)
    axes.set_xlim(0)
    axes.set_yticks(range(len(methods)), [style.look(method).label for method in methods])
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, title="dotted: as short from the start")
    axes.get_legend().get_title().set_fontsize(5.5)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()


def main() -> None:
    """Command line."""
    results, figures, *_ = [*map(Path, sys.argv[1:]), *map(Path, ("results", "figures")[len(sys.argv) - 1 :])]
    with style.applied():
        style.save(draw(results), figures, "gpu_report")


if __name__ == "__main__":
    main()
