"""From predictions and evidence boxes to the table of evidence recall."""

from pathlib import Path

import pandas as pd
import pytest

from experiments import evidence_recall
from experiments.parameters.load import Parameters, load_parameters
from tests.experiments import workspace

METHODS = {"full": {}, "pool": {}, "fastv": {"k": 1}}
QUESTIONS = 12
EVIDENCE = [0, 1, 2, 6, 7, 8]  # of a 6 x 6 raster


def answers(kept: list[dict], layers: int = 4, visual_tokens: int = 36) -> pd.DataFrame:
    counts = [visual_tokens] * layers
    for change in kept:
        counts[change["layer"] :] = [len(change["indices"])] * (layers - change["layer"])
    row = {"correct": True, "visual_tokens": visual_tokens, "visual_tokens_per_layer": counts, "kept": kept}
    kinds = {0: "attribute", 1: "counting"}
    row |= {"evidence": EVIDENCE if visual_tokens == 36 else None}
    rows = [row | {"id": f"q{n:03d}", "type": kinds[n % 3]} for n in range(QUESTIONS) if n % 3 in kinds]
    return pd.DataFrame(rows)


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    workspace.make(tmp_path, questions=QUESTIONS, budgets=[1.0, 0.5], methods=METHODS)
    workspace.write_predictions(tmp_path, "full", {1.0: answers([])})
    merged = [{"layer": 0, "indices": [0, 1, 36, 37]}]  # two tokens are themselves, two are made of several
    workspace.write_predictions(tmp_path, "pool", {0.5: answers(merged)})
    inside = answers([{"layer": 1, "indices": [0, 1, 2, 35]}, {"layer": 3, "indices": [2]}])
    inside.loc[inside["type"] == "counting", "correct"] = False
    workspace.write_predictions(tmp_path, "fastv", {0.5: inside})
    monkeypatch.chdir(tmp_path)
    return load_parameters()


def test_recall_by_layer_merged_tokens_count_for_no_cell(parameters: Parameters) -> None:
    table = evidence_recall.table(parameters).set_index(["type", "method"])
    assert table.loc[("all", "full"), ["recall", "recall_last_layer", "merged"]].tolist() == [1, 1, 0]
    assert table.loc[("all", "pool"), ["recall", "recall_last_layer"]].tolist() == pytest.approx([2 / 6] * 2, abs=1e-6)
    assert table.loc[("all", "pool"), "merged"] == 0.5
    # One layer with all six, two with three, one with one.
    assert table.loc[("all", "fastv"), "recall"] == pytest.approx((6 + 3 + 3 + 1) / 24, abs=1e-6)
    assert table.loc[("all", "fastv"), "recall_last_layer"] == pytest.approx(1 / 6, abs=1e-6)


def test_accuracy_stands_beside_it_with_intervals_by_type(parameters: Parameters) -> None:
    table = evidence_recall.table(parameters)
    assert table["type"].unique().tolist() == ["all", "attribute", "counting"]
    table = table.set_index(["type", "method"])
    row = table.loc[("all", "fastv")]
    assert (row["n"], row["accuracy"]) == (8, 0.5) and row["accuracy_low"] < 0.5 < row["accuracy_high"]
    assert table.loc[("counting", "fastv"), ["n", "accuracy"]].tolist() == [4, 0]
    assert row["recall_low"] == row["recall_high"] == row["recall"]


def test_questions_with_several_looks_have_rows_of_their_own(parameters: Parameters) -> None:
    for path in Path("results/predictions").glob("*.parquet"):
        answered = pd.read_parquet(path)
        answered["type"] = answered["type"].replace("counting", "relay")
        answered.to_parquet(path)
    table = evidence_recall.table(parameters)
    assert table["type"].unique().tolist() == ["all", "several_looks", "attribute", "relay"]
    assert table.set_index(["type", "method"]).loc[("several_looks", "fastv"), ["n", "accuracy"]].tolist() == [4, 0]


def test_questions_without_boxes_are_left_out(parameters: Parameters) -> None:
    set_evidence(without=4)
    assert evidence_recall.table(parameters)["n"].unique().tolist() == [4, 2]
    set_evidence(without=8)
    with pytest.raises(ValueError, match="no question has evidence boxes"):
        evidence_recall.table(parameters)


def set_evidence(without: int) -> None:
    """Take the evidence from the first questions of every method."""
    for path in Path("results/predictions").glob("*.parquet"):
        answered = pd.read_parquet(path)
        answered["evidence"] = [[] if number < without else EVIDENCE for number in range(len(answered))]
        answered.to_parquet(path)


def test_visual_tokens_that_are_no_square_raster_are_refused(parameters: Parameters, tmp_path: Path) -> None:
    workspace.write_predictions(tmp_path, "full", {1.0: answers([], visual_tokens=35)})
    with pytest.raises(ValueError, match="35 are none"):
        evidence_recall.table(parameters)
