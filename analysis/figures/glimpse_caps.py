"""GlimpsePrune: accuracy against the cap on what is kept beside the paper's, and how the kept share varies."""

from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures.shared import style

INPUTS = ("glimpse_questions.csv", "glimpse_masks.csv", "accuracy.csv")
PUBLISHED = Path("data/published/glimpseprune.csv")
_RIVALS = ("pyramiddrop", "visionzip")
_CAPS = {"cap 11.1%": 11.1, "cap 22.2%": 22.2, "cap 33.3%": 33.3, "uncapped": 100.0}
_THRESHOLD = 0.5
_PUBLISHED_METHODS = ("glimpse", "pyramiddrop")


def draw(results: Path, published: Path = PUBLISHED) -> Figure:
    """Three panels: (a) ours, (b) the published table, (c) kept shares of single questions by type, without a cap.

    Args:
        results: folder with the CSV files of INPUTS.
        published: the paper's numbers.
    """
    masks = _as_published(pd.read_csv(results / "glimpse_masks.csv"))
    accuracy = style.one_model(pd.read_csv(results / "accuracy.csv"))
    figure = style.new_figure(style.PAGE_WIDTH, 2.1 + style.legend_height(["glimpse", *_RIVALS], 4))
    ours, theirs, shares = figure.subplots(1, 3)
    _draw_ours(ours, masks[masks["type"] == "all"], accuracy[accuracy["type"] == "all"])
    _draw_published(theirs, pd.read_csv(published))
    _draw_shares(shares, _as_published(pd.read_csv(results / "glimpse_questions.csv")))
    for axes, letter in zip((ours, theirs, shares), "abc", strict=True):
        style.tag(axes, letter)
    style.legend(figure, ["full", "glimpse", *_RIVALS], 4)
    return figure


def _as_published(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first model, at the published threshold."""
    return table[(table["model"] == table["model"].iloc[0]) & (table["threshold"] == _THRESHOLD)]


def _draw_ours(axes: Axes, masks: pd.DataFrame, accuracy: pd.DataFrame) -> None:
    """A cap is what GlimpsePrune may keep behind layer K; the others' budget is the mean over the layers."""
    full = accuracy[accuracy["method"] == "full"].iloc[0]
    axes.axhline(100 * full["accuracy"], color=style.look("full").colour, linestyle="--", linewidth=0.7)
    rows = masks.assign(share=100 * masks["cap"]).sort_values("share")
    style.points(axes, "glimpse", rows["share"], rows)
    for method in _RIVALS:
        rows = accuracy[accuracy["method"] == method].sort_values("budget")
        style.points(axes, method, 100 * rows["budget"], rows)
    _axis(axes, "Testbed accuracy (%)")
    axes.set_xlabel("Cap behind layer K, or budget (%)")


def _draw_published(axes: Axes, published: pd.DataFrame) -> None:
    scores = published[published["metric"].str.startswith("score")]
    full = scores.loc[scores["method"] == "full", "value"].iloc[0]
    axes.axhline(full, color=style.look("full").colour, linestyle="--", linewidth=0.7)
    for method in _PUBLISHED_METHODS:
        look, rows = style.look(method), scores[scores["method"] == method]
        axes.plot(rows["setting"].map(_CAPS), rows["value"], color=look.colour, linestyle=look.line, marker=look.marker)
    _axis(axes, "Published score (7B, free form)")
    axes.set_xlabel("Cap (%)")
    axes.set_title("as published", loc="right", fontstyle="italic")


def _draw_shares(axes: Axes, questions: pd.DataFrame) -> None:
    uncapped = questions[questions["cap"] == questions["cap"].max()]
    uncapped = uncapped.assign(percent=100 * uncapped["kept_share"], kind=uncapped["type"].str.replace("_", " "))
    order = uncapped.groupby("kind")["percent"].median().sort_values().index
    colour = style.look("glimpse").colour
    sns.boxplot(
        uncapped, x="percent", y="kind", order=order, ax=axes, color=colour, fill=False, linewidth=0.7, fliersize=1.5
    )
    axes.set_xlabel("Kept behind layer K (%), no cap")
    axes.set_ylabel("")


def _axis(axes: Axes, label: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks([11.1, 22.2, 33.3, 100], ["11", "22", "33", "100"])
    axes.minorticks_off()
    axes.set_ylabel(label)
