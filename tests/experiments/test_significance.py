"""From predictions to the table of paired tests."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import significance
from experiments.parameters.load import Parameters, load_parameters
from tests.experiments import workspace

METHODS = {"full": {}, "random": {"seed": 0}, "grid": {}, "fastv": {"k": 2}}
QUESTIONS = 100


def answers(wrong: range) -> pd.DataFrame:
    """Every question answered but these."""
    ids = [f"q{number:03d}" for number in range(QUESTIONS)]
    types = np.where(np.arange(QUESTIONS) < 30, "chain", "counting")
    return pd.DataFrame({"id": ids, "type": types, "correct": ~np.isin(range(QUESTIONS), wrong)})


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    """grid is as good as full on other questions, random much worse; fastv only reaches the first budget."""
    workspace.make(tmp_path, budgets=[1.0, 0.5, 0.25], methods=METHODS)
    workspace.write_predictions(tmp_path, "full", {1.0: answers(range(5))})
    workspace.write_predictions(tmp_path, "random", {0.5: answers(range(20)), 0.25: answers(range(60))})
    # In another order of questions.
    workspace.write_predictions(
        tmp_path, "grid", {0.5: answers(range(5, 10)).iloc[::-1], 0.25: answers(range(10)).iloc[::-1]}
    )
    workspace.write_predictions(tmp_path, "fastv", {0.5: answers(range(0)), 0.25: 12.0})
    monkeypatch.chdir(tmp_path)
    return load_parameters()


def test_every_pair_once_on_the_same_questions_with_the_full_model_at_every_budget(parameters: Parameters) -> None:
    pairs = significance.table(parameters).query("type == 'all'").set_index(["budget", "first", "second"])
    assert pairs.loc[0.5].index.tolist() == [
        ("full", "random"), ("full", "grid"), ("full", "fastv"), ("random", "grid"), ("random", "fastv"),
        ("grid", "fastv"),
    ]  # fmt: skip
    assert pairs.loc[0.25].index.tolist() == [("full", "random"), ("full", "grid"), ("random", "grid")]
    row = pairs.loc[(0.5, "full", "grid")]
    assert (row["n"], row["only_first"], row["only_second"], row["difference"]) == (100, 5, 5, 0)
    row = pairs.loc[(0.25, "full", "random")]
    assert (row["only_first"], row["only_second"], row["difference"]) == (55, 0, 0.55)
    assert row["p"] == pytest.approx(2 * 0.5**55) and row["p_holm"] == pytest.approx(3 * row["p"])


def test_questions_with_several_looks_are_tested_again_among_themselves(parameters: Parameters) -> None:
    rows = significance.table(parameters).query("type == 'several_looks'").set_index(["budget", "first", "second"])
    row = rows.loc[(0.25, "full", "random")]
    assert (row["n"], row["only_first"], row["only_second"]) == (30, 25, 0)
    assert row["p_holm"] == pytest.approx(3 * 2 * 0.5**25), "corrected for the three pairs of this group alone"


def test_correction_is_over_the_pairs_of_one_budget(parameters: Parameters) -> None:
    rows = significance.table(parameters).query("type == 'all'").set_index(["budget", "first", "second"])
    row = rows.loc[(0.5, "full", "fastv")]
    assert row["p"] == pytest.approx(2 * 0.5**5)
    # Of six p-values three are smaller.
    smaller = rows.loc[0.5]["p"].lt(row["p"]).sum()
    assert row["p_holm"] == pytest.approx((6 - smaller) * row["p"]) and not row["significant"]
    assert rows.loc[(0.25, "random", "grid"), "significant"]


def test_markdown_shows_who_is_better_from_both_sides(parameters: Parameters) -> None:
    lines = significance.markdown(significance.table(parameters), 0.05).splitlines()
    start = lines.index("All, budget 25.0%, n = 100 questions, 3 pairs")
    assert lines[start + 4 : start + 7] == [
        "| 1 | full | 95.0 | · |  | + |",
        "| 2 | grid | 90.0 |  | · | + |",
        "| 3 | random | 40.0 | − | − | · |",
    ]
    assert "5% level" in lines[-1]


def test_methods_that_answered_different_questions_are_refused(parameters: Parameters, tmp_path: Path) -> None:
    fewer = answers(range(5)).iloc[1:]
    workspace.write_predictions(tmp_path, "full", {1.0: fewer})
    with pytest.raises(ValueError, match="different questions: run `dvc repro evaluate`"):
        significance.table(parameters)


def test_one_method_alone_is_refused(parameters: Parameters) -> None:
    alone = parameters.evaluate.model_copy(update={"methods": {"full": {}}})
    with pytest.raises(ValueError, match="at least two methods"):
        significance.table(parameters.model_copy(update={"evaluate": alone}))
