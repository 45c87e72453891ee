"""Captions scored by the facts they state."""

from pathlib import Path

import pandas as pd
import pytest
from datasets import Dataset

from experiments import free_form
from experiments.recorded import paths
from experiments.testbed.facts import facts, objects_named, score_facts
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


def test_naming_more_than_was_asked_costs_precision() -> None:
    score = score_facts("a red dot , a red star", "a red star")
    assert score.precision == 0.5 and score.recall == 1


def test_objects_are_named_by_colour_and_shape_together() -> None:
    assert objects_named(REFERENCE) == {("red", "circle"), ("blue", "star"), ("green", "dot")}
    assert objects_named("the red star is left of the blue star .") == {("red", "star"), ("blue", "star")}
    assert objects_named("there is no cyan square in the picture .") == frozenset()
    assert objects_named("there are 3 red objects in the picture . the star is red .") == frozenset()


def test_hallucination_counts_objects_that_the_scene_does_not_have() -> None:
    """Two captions of one scene: 1 of 4 named objects is invented, by 1 of 2 captions."""
    scene = {"evaluation-0001": objects_named(REFERENCE)}
    given = [
        ("caption", "a large red circle , a blue dot", REFERENCE),
        ("caption", "a small blue star , a green dot", REFERENCE),
    ]
    texts = pd.DataFrame(
        {"row": row, "id": f"evaluation-0001-{kind}", "method": "full", "budget": 1.0}
        | {"answer": right, "prediction": text}
        for row, (kind, text, right) in enumerate(given)
    )
    asked = Dataset.from_dict({"question": ["?"] * 2, "type": [kind for kind, _, _ in given]})
    described = pd.DataFrame([{"method": "full", "budget": 1.0, "feasible": True, "floor": None}])
    result = free_form.summary(free_form.scored(texts, asked, scene), described, seed=0).set_index("type")
    assert result.loc["caption", ["chair_i", "chair_s"]].tolist() == [0.25, 0.5]
    assert result.loc["caption", "chair_s_low"] < 0.5 < result.loc["caption", "chair_s_high"]


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
    texts = pd.read_parquet(paths.TEXTS)
    assert set(texts["answer"]) == {REFERENCE} and texts["recall"].between(0, 1).all()
