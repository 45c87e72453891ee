"""Figures by question type: all questions and those with several looks come before the types."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis.figures.shared import style
from tests.analysis.figures.figure_inputs import TYPES, write_all


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results with a group `several_looks`, worse than any type by 20 points where it is measured."""
    write_all(tmp_path)
    for path in [tmp_path / f"{name}.csv" for name in ("accuracy", "reading_depth", "score_kept")]:
        table = pd.read_csv(path)
        group = table[table["type"] == "small_object"].assign(type="several_looks")
        group[["accuracy", "ci_low", "ci_high"]] -= 0.2
        pd.concat([table, group]).to_csv(path, index=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(name: str, results: Path) -> Figure:
    with style.applied():
        return importlib.import_module(f"analysis.figures.{name}").draw(results)


def test_accuracy_against_budget_has_a_panel_for_them_behind_all_questions(results: Path) -> None:
    panels = [axes for axes in drawn("accuracy_against_budget", results).axes if axes.get_visible()]
    titles = [axes.get_title() for axes in panels]
    assert titles[:3] == ["All questions", "Several looks", "Attribute"] and len(titles) == len(TYPES) + 1
    table = pd.read_csv(results / "accuracy.csv").query("type == 'several_looks' and method == 'vispruner'")
    colour = style.look("vispruner").colour
    (line,) = [line for line in panels[1].lines if line.get_color() == colour and line.get_marker() == "o"]
    shown = np.asarray(line.get_ydata(), dtype=float)
    np.testing.assert_allclose(shown, 100 * table.sort_values("mean_visual_tokens")["accuracy"])


def test_reading_depth_sets_them_beside_all_questions_and_not_among_the_types(results: Path) -> None:
    together, apart = drawn("reading_depth", results).axes
    lines = {line.get_label(): line.get_ydata() for line in together.lines}
    assert list(lines) == ["All questions, n = 120", "Several looks, n = 120"]
    both = zip(lines["All questions, n = 120"], lines["Several looks, n = 120"], strict=True)
    assert [whole - several for whole, several in both] == pytest.approx([20] * 4)
    assert [line.get_label() for line in apart.lines] == [kind.replace("_", " ") for kind in TYPES[1:]]


def test_without_them_nothing_stands_in_their_place(results: Path) -> None:
    table = pd.read_csv(results / "reading_depth.csv").query("type != 'several_looks'")
    table.to_csv(results / "reading_depth.csv", index=False)
    assert [line.get_label() for line in drawn("reading_depth", results).axes[0].lines] == ["All questions, n = 120"]


def test_bars_of_scores_have_them_behind_all_questions(results: Path) -> None:
    labels = [label.get_text() for label in drawn("score_kept", results).axes[0].get_xticklabels()]
    assert labels[:3] == ["all", "several\nlooks", "attribute"]
