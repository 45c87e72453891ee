"""Results by group of questions: all, those that take several looks, each type."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import accuracy, glimpse_masks, second_model, tables
from experiments.asking import grid
from experiments.parameters.load import Parameters, load_parameters
from experiments.recorded import paths
from experiments.recorded.by_type import TYPES_OF_SEVERAL_LOOKS, groups
from experiments.testbed.questions import SEVERAL_LOOKS
from pruning.methods.full import Full
from tests.experiments import workspace

# Eight questions; the last four take several looks, and one of them is answered.
ANSWERS = pd.DataFrame(
    {
        "id": [f"q{number}" for number in range(8)],
        "type": ["reading"] * 2 + ["attribute"] * 2 + ["relay"] + ["link"] * 3,
    }
    | {"correct": [True] * 5 + [False] * 3, "parameters": "{}", "visual_tokens_per_layer": [[4, 2]] * 8}
)
GROUPS = ["all", "several_looks", "attribute", "link", "reading", "relay"]


@pytest.fixture
def parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Parameters:
    """full and fastv have answered; fastv does not reach the lower budget."""
    monkeypatch.chdir(tmp_path)
    workspace.make(tmp_path, methods={"full": {}, "fastv": {"k": 1}}, budgets=[1.0, 0.5, 0.25])
    workspace.write_predictions(tmp_path, "full", {1.0: ANSWERS})
    workspace.write_predictions(tmp_path, "fastv", {0.5: ANSWERS, 0.25: 3.0})
    flops = pd.DataFrame({"method": ["full", "fastv"], "budget": [1.0, 0.5], "total": [5, 3]})
    flops.to_csv(paths.FLOPS, index=False)
    return load_parameters()


def test_questions_with_several_looks_are_a_group_beside_all_and_the_types() -> None:
    found = dict(groups(ANSWERS, "scenes"))
    assert list(found) == GROUPS
    assert found["several_looks"]["id"].tolist() == ["q4", "q5", "q6", "q7"]
    assert sum(len(found[kind]) for kind in GROUPS[2:]) == len(found["all"]) == 8


def test_without_such_questions_there_is_no_such_group() -> None:
    one_look = ANSWERS[ANSWERS["type"].isin(["reading", "attribute"])]
    assert [name for name, _ in groups(one_look, "scenes")] == ["all", "attribute", "reading"]
    assert "several_looks" not in dict(groups(ANSWERS, "another benchmark"))


def test_types_that_are_asked_for_have_a_group_without_rows_too() -> None:
    sizes = {name: len(rows) for name, rows in groups(ANSWERS[:0], "scenes", ["link"])}
    assert sizes == {"all": 0, "several_looks": 0, "link": 0}


def test_accuracy_and_its_tables_have_the_questions_with_several_looks(parameters: Parameters, tmp_path: Path) -> None:
    table = accuracy.table(parameters)
    assert table.loc[table["method"] == "full", "type"].tolist() == GROUPS
    cells = table.set_index(["method", "budget", "type"])
    row = cells.loc[("full", 1.0, "several_looks")]
    assert (row["n"], row["accuracy"]) == (4, 0.25) and row["ci_low"] <= 0.25 <= row["ci_high"]
    assert not cells.loc[("fastv", 0.25, "several_looks"), "feasible"]
    shown = tables.accuracy_table(table, "several_looks").set_index("method")
    assert shown.loc["full", "100.0%"].value == 25 and shown.loc["fastv", "25.0%"] == "floor 3.0"
    assert tables.accuracy_table(table).set_index("method").loc["full", "100.0%"].value == 62.5
    caption = tables.accuracy_caption(table, 0.95, "several_looks")
    assert "n = 4 questions that take several looks, with" in caption


def test_settings_have_the_questions_with_several_looks(parameters: Parameters) -> None:
    answered = ANSWERS.assign(variant=0)
    one = grid.Variant({"k": 1}, Full, {})
    rows = {row["type"]: row for row in grid.describe(one, 0, answered, {}, parameters)}
    assert list(rows) == GROUPS and (rows["several_looks"]["n"], rows["several_looks"]["accuracy"]) == (4, 0.25)
    refused = [*grid.describe(one, 1, answered, {1: "too deep"}, parameters)]
    assert [row["type"] for row in refused] == GROUPS and not any(row["feasible"] for row in refused)


def test_glimpse_masks_have_the_questions_with_several_looks(parameters: Parameters) -> None:
    asked = ANSWERS.assign(cap=1.0, random_correct=np.nan, **dict.fromkeys(glimpse_masks.MEASURES, 0.5))
    table = glimpse_masks.summary(
        asked.assign(kept_share=[0.1] * 4 + [0.3] * 4), ["cap"], "scenes", parameters.accuracy
    )
    assert table["type"].tolist() == GROUPS
    row = table.set_index("type").loc["several_looks"]
    assert (row["n"], row["accuracy"], row["kept_share"]) == (4, 0.25, 0.3)


def test_the_second_model_has_the_questions_with_several_looks(parameters: Parameters) -> None:
    head = {"method": "full", "budget": 1.0, "feasible": True}
    rows = {row["type"]: row for row in second_model.rows_of(head, ANSWERS.assign(ratio=1.0), parameters)}
    assert list(rows) == GROUPS and rows["several_looks"]["accuracy"] == 0.25


def test_the_group_of_the_scenes_is_what_the_scenes_say() -> None:
    assert TYPES_OF_SEVERAL_LOOKS["scenes"] == SEVERAL_LOOKS


def test_metrics_are_given_for_both_groups(parameters: Parameters) -> None:
    found = accuracy.metrics(accuracy.table(parameters))
    assert list(found) == ["all", "several_looks"] and found["several_looks"]["full"] == {"100.0%": 0.25}
