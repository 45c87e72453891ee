"""What a method saves: prefill, decoding and memory as shares of the full model's, measured side by side in one run."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("efficiency.csv",)
_MEASURES = {
    "prefill": ("Prefill time", "prefill_ms", "ms"),
    "decode": ("Decoding, time per token", "decode_ms", "ms"),
    "peak_memory": ("Peak memory", "peak_memory_mb", "MB"),
    "kv_cache": ("KV cache", "kv_cache_mb", "MB"),
}


def draw(results: Path) -> Figure:
    """One panel a measure: median ratio with its quartiles, the measured value in the bar; no panel for what was not.

    Args:
        results: folder with efficiency.csv.
    """
    table = pd.read_csv(results / "efficiency.csv").set_index("method")
    methods = [method for method in style.ordered(table.index) if method != "full"]
    measured = [short for short in _MEASURES if table[f"{short}_ratio"].notna().all()]
    figure = style.new_figure(style.PAGE_WIDTH, 0.8 + 0.22 * len(methods))
    for axes, short in zip(figure.subplots(1, len(measured), sharey=True), measured, strict=True):
        _draw_panel(axes, table.loc[methods], short)
    setting = table.iloc[0]
    figure.suptitle(
        f"Batch of {setting['batch_size']}, {setting['visual_tokens']} visual tokens each; {setting['device']}, "
        f"{setting['dtype']}, {setting['threads']} threads",
        fontsize=6,
    )
    return figure


def _draw_panel(axes: Axes, table: pd.DataFrame, short: str) -> None:
    title, value, unit = _MEASURES[short]
    ratio, low, high = (100 * table[f"{short}_ratio{end}"] for end in ("", "_low", "_high"))
    labels = [style.look(method).label for method in table.index]
    bars = axes.barh(
        labels, ratio, xerr=[ratio - low, high - ratio], color=[style.look(method).colour for method in table.index],
        height=0.7, error_kw={"elinewidth": 0.6, "capsize": 1.5, "capthick": 0.5},
    )  # fmt: skip
    axes.bar_label(bars, [f"{number:.3g} {unit}" for number in table[value]], padding=2, fontsize=5.5)
    axes.axvline(100, color=style.look("full").colour, linestyle="--", linewidth=0.7)
    axes.set(title=f"{title} (%)", xlabel=f"Of the full model's {table[f'full_{value}'].median():.3g} {unit}")
    axes.set_xlim(0, max(105, 1.3 * high.max()))
    axes.grid(axis="y", visible=False)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
