"""How the embedded model was trained: the share right, by question type or patch attribute, over each phase's steps."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("training.csv",)
_PHASES = {
    "words": "Decoder on described patches,\none look",
    "looks": "Several looks",
    "chains": "The longest",
    "vision": "Vision tower and projector",
    "joint": "All parts, on pixels",
}
_DESCRIBED = ("loss", "step", "seconds")


def draw(results: Path) -> Figure:
    """One panel a phase; a line for each measure that the phase logged.

    Args:
        results: folder with training.csv (phase, step, seconds, loss, and one column for each measure).
    """
    log = pd.read_csv(results / "training.csv")
    figure = style.new_figure(style.PAGE_WIDTH, 3.0)
    for axes, (phase, title) in zip(figure.subplots(1, len(_PHASES), sharey=True), _PHASES.items(), strict=True):
        here = log[log["phase"] == phase].dropna(axis="columns", how="all").drop(columns="phase")
        # What `vision` has its own panel for is not drawn again.
        measures = [name for name in here.columns if name not in _DESCRIBED]
        if phase == "joint":
            measures = [name for name in measures if not name.endswith("_right")]
        tidy = here.melt("step", measures, var_name="measure", value_name="right")
        tidy["measure"] = tidy["measure"].str.removesuffix("_right").str.replace("_", " ")
        sns.lineplot(tidy, x="step", y="right", hue="measure", style="measure", palette="colorblind", lw=0.9, ax=axes)
        axes.set(title=title, xlabel="Step", ylabel="Share right", ylim=(0, 1.02))
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3)
    return figure
