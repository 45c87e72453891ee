"""How the embedded model was trained: the share right, by question type or patch attribute, over each phase's steps."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("training.csv",)
_PHASES = {
    "words": "Decoder, described patches: one look",
    "looks": "Several looks",
    "chains": "The longest of them",
    "steps": "And their steps",
    "vision": "Vision tower and projector",
}
_DESCRIBED = ("phase", "loss", "step", "seconds")
_COLUMNS = 3


def draw(results: Path) -> Figure:
    """One panel a phase; a line for each measure that the phase logged, the same look in all panels.

    Args:
        results: folder with training.csv (phase, step, seconds, loss, and one column for each measure).
    """
    log = pd.read_csv(results / "training.csv")
    names = {name: name.removesuffix("_right").replace("_", " ") for name in log.columns if name not in _DESCRIBED}
    order = list(dict.fromkeys(names.values()))
    looks = {"palette": dict(zip(order, sns.husl_palette(len(order), l=0.5), strict=True)), "style_order": order}
    rows = -(-len(_PHASES) // _COLUMNS)
    figure = style.new_figure(style.PAGE_WIDTH, 1.7 * rows + 0.6)
    shown: dict[str, Artist] = {}
    grid = figure.subplots(rows, _COLUMNS, sharey=True)
    for axes, (phase, title) in zip(grid.flat, _PHASES.items(), strict=False):
        here = log[log["phase"] == phase].dropna(axis="columns", how="all")
        measures = [name for name in names if name in here]
        tidy = here.melt("step", measures, var_name="measure", value_name="right")
        tidy["measure"] = tidy["measure"].map(names)
        sns.lineplot(tidy, x="step", y="right", hue="measure", style="measure", lw=0.9, ax=axes, legend=True, **looks)
        axes.set(title=title, xlabel="Step", ylabel="Share right", ylim=(0, 1.02))
        axes.get_legend().remove()
        drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        shown |= {names[name]: drawn[names[name]] for name in measures}
    for axes in grid.flat[len(_PHASES) :]:
        axes.set_axis_off()
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=8)
    return figure
