"""Sequential Prune: step, first layer K and final fraction R against accuracy; the published row of steps beside it."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.quartile_kept import draw_lines

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
    panels[-1].legend(loc="lower right", ncols=2)
    by_tokens, theirs = lower.subplots(1, 2, width_ratios=(2, 1))
    draw_lines(by_tokens, rows, "mean_visual_tokens", "step", "step {:g}%", apart=0.0)
    for line in by_tokens.lines:
        line.set_linestyle("--" if line.get_label() == "Unpruned" else "none")
    by_tokens.set_xlabel("Mean visual tokens over the decoder layers (crosses above: more steps than layers from K on)")
    by_tokens.set_ylabel("Accuracy (%), 95% interval")
    by_tokens.set_title(f"All that fit, {rows['model'].iloc[0]}, n = {rows['n'].max()}")
    _draw_published(theirs, pd.read_csv(published))
    style.tag(by_tokens, "abcdefgh"[len(ratios)])
    style.tag(theirs, "abcdefgh"[len(ratios) + 1])
    return figure


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    steps = published["setting"].str.extract(_PUBLISHED_SETTING).astype(float).dropna()
    values = published.loc[steps.index, "value"]
    axes.bar(range(len(steps)), values, color="#a6a6a6", hatch="///", edgecolor="#ffffff", linewidth=0)
    for place, value in enumerate(values):
        axes.annotate(f"{value:.3f}", (place, value), ha="center", va="bottom", fontsize=6)
    axes.set_xticks(range(len(steps)), [f"{step:g}%" for step in steps["step"]])
    axes.grid(False, axis="x")
    axes.set_xlabel("Step")
    axes.set_ylabel("OCR-VQA ROUGE-L")
    axes.set_title(f"Published: 13B, R = {steps['r'].iloc[0]:g}, K = {steps['k'].iloc[0]:g}")
