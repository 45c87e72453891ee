"""Captions scored by the facts they state."""

from pathlib import Path

import pandas as pd
import pytest

from experiments import free_form
from experiments.testbed.facts import facts, score_facts
from tests.experiments import workspace

REFERENCE = "a large red circle with k , a small blue star , a green dot"


@pytest.mark.parametrize(
    "prediction, precision, recall",
    [
        (REFERENCE, 1, 1),
        ("a green dot , a small blue star , a large red circle with k", 1, 1),  # order is no fact
        ("a large red circle with k , a large red circle with k", 1, 3 / 6),  # nor is saying it twice
        ("a large red circle with k , a small blue star , a red dot", 5 / 6, 5 / 6),
        ("a red circle", 1, 1 / 6),
        ("a large red square", 0, 0),
        ("", 0, 0),
        ("red with k , circle", 0, 0),  # a colour and a shape make an object only together
    ],
)
def test_precision_and_recall_of_facts(prediction: str, precision: float, recall: float) -> None:
    score = score_facts(prediction, REFERENCE)
    assert score.precision == pytest.approx(precision)
    assert score.recall == pytest.approx(recall)
    assert score.f1 == pytest.approx(2 * precision * recall / (precision + recall) if recall else 0)


def test_a_reference_without_facts_is_an_error() -> None:
    assert facts("yes") == frozenset()
    with pytest.raises(ValueError, match="no fact"):
        score_facts(REFERENCE, "yes")


def test_stage_writes_one_row_for_each_method_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace.make(tmp_path)
    workspace.write_benchmark(folder / "data/scenes/evaluation.parquet", 12, caption=REFERENCE)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["free_form"])
    free_form.main()
    result = pd.read_csv(free_form.RESULT)
    assert [*zip(result["method"], result["budget"], strict=True)] == [
        ("full", 1.0),
        ("random", 0.5),
        ("random", 0.05),
        ("fastv", 0.5),
        ("fastv", 0.05),
    ]
    assert result["n"].to_list() == [4, 4, 4, 4, 0]
    texts = pd.read_parquet(free_form.TEXTS)
    assert set(texts["answer"]) == {REFERENCE} and texts["recall"].between(0, 1).all()
