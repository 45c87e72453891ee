"""Sequential Prune: step, first layer K and final fraction R against accuracy; the published row of steps beside it."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.figures.shared import style
from analysis.figures.shared.panels import draw_lines, set_limits

INPUTS = ("ablation/sequential_prune.csv",)
PUBLISHED = Path("data/published/sequential_prune.csv")
_PUBLISHED_SETTING = r"R=(?P<r>[\d.]+), K=(?P<k>\d+), step (?P<step>\d+)"


def draw(results: Path, published: Path = PUBLISHED) -> Figure:
    """One panel for each R, by K, a line for each step; then all by mean visual tokens; then the published row.

    Args:
        results: folder with ablation/sequential_prune.csv.
        published: CSV of published values; see data/published.
    """
    table = pd.read_csv(results / "ablation/sequential_prune.csv")
    rows = table[table["type"] == "all"]
    ratios = sorted(rows["r"].dropna().unique())
    figure = style.new_figure(style.PAGE_WIDTH, 4.2)
    upper, lower = figure.subfigures(2, 1)
    panels = upper.subplots(1, len(ratios), sharey=True, squeeze=False)[0]
    for letter, axes, ratio in zip("abcdefgh", panels, ratios, strict=False):
        draw_lines(axes, rows[(rows["r"] == ratio) | rows["r"].isna()], "k", "step", "step {:g}%", apart=0.08)
        axes.set_xlabel("K, decoder layer of the first step")
        axes.set_title(f"R = {ratio:g}")
        style.tag(axes, letter)
    panels[0].set_ylabel("Accuracy (%), 95% interval")
    set_limits(panels[0], rows)
    handles, labels = panels[0].get_legend_handles_labels()
    misfit = Line2D([], [], color="#4d4d4d", marker="x", markersize=2.6, linestyle="none")
    handles, labels = [*handles, misfit], [*labels, "more steps than layers"]
    upper.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    by_tokens, theirs = lower.subplots(1, 2, width_ratios=(2, 1))
    draw_lines(by_tokens, rows, "mean_visual_tokens", "step", "step {:g}%", apart=0.0)
    for line in by_tokens.lines:
        line.set_linestyle("--" if line.get_label() == "Unpruned" else "none")
    set_limits(by_tokens, rows[rows["feasible"]])
    by_tokens.set_xlabel("Mean visual tokens over the decoder layers")
    by_tokens.set_ylabel("Accuracy (%), 95% interval")
    by_tokens.set_title(f"All that fit, {rows['model'].iloc[0]}, n = {rows['n'].max()}")
    _draw_published(theirs, pd.read_csv(published))
    style.tag(by_tokens, "abcdefgh"[len(ratios)])
    style.tag(theirs, "abcdefgh"[len(ratios) + 1])
    return figure


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    settings = published["setting"]
    low, high = (published.loc[settings.str.contains(end), "value"].item() for end in ("lowest", "highest"))
    axes.axhspan(low, high, color="#000000", linewidth=0.7)
    steps = settings.str.extract(_PUBLISHED_SETTING).astype(float).dropna()
    values = published.loc[steps.index, "value"]
    axes.bar(range(len(steps)), values, color="#a6a6a6", hatch="///", edgecolor="#ffffff", linewidth=0)
    for place, value in enumerate(values):
        axes.annotate(f"{value:.3f}", (place, value), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(steps)), [f"{step:g}%" for step in steps["step"]])
    axes.grid(False, axis="x")
    axes.set_ylim(0, 0.6)
    axes.set_xlabel(f"Step, bars: R = {steps['r'].iloc[0]:g}; line: R = 0.5, any step")
    axes.set_ylabel("OCR-VQA ROUGE-L")
    axes.set_title(f"Published: {published['model'].iloc[0]}, K = {steps['k'].iloc[0]:g}")
