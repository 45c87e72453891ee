"""Which tokens a method kept, from the predictions to the table behind the figure."""

import json

import pandas as pd
import pytest

from experiments.kept_tokens import COLUMNS, examples, shared_budget, table
from experiments.recorded.kept import layers_per_token, merged_into


def prediction(name: str, kind: str, method: str, budget: float, correct: bool, kept: list[dict]) -> dict:
    counts = [6] * 4
    for change in kept:
        counts[change["layer"] :] = [len(change["indices"])] * (4 - change["layer"])
    texts = {"prediction": "red", "answer": "red" if correct else "blue"}
    row = {"id": name, "type": kind, "method": method, "budget": budget, "correct": correct, **texts}
    return row | {"visual_tokens_per_layer": counts, "kept": kept, "merged": []}


@pytest.fixture
def predictions() -> pd.DataFrame:
    before, inside = [{"layer": 0, "indices": [1, 4]}], [{"layer": 1, "indices": [0, 5]}, {"layer": 3, "indices": [5]}]
    rows = []
    for name, kind, right in (("a", "counting", False), ("b", "counting", True), ("c", "reading", False)):
        rows.append(prediction(name, kind, "full", 1.0, right, []))
        rows += [prediction(name, kind, "vispruner", budget, True, before) for budget in (0.5, 0.25, 0.1)]
        rows += [prediction(name, kind, "fastv", budget, False, inside) for budget in (0.5, 0.25)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([], [4, 4, 4, 4, 4, 4]),
        ([{"layer": 0, "indices": [1, 4]}], [0, 4, 0, 0, 4, 0]),
        ([{"layer": 1, "indices": [0, 5]}, {"layer": 3, "indices": [5]}], [3, 1, 1, 1, 1, 4]),
        ([{"layer": 2, "indices": []}], [2, 2, 2, 2, 2, 2]),
    ],
)
def test_layers_each_token_enters(kept, expected):
    assert layers_per_token(kept, num_visual=6, layers=4).tolist() == expected


def test_budget_that_most_methods_reach(predictions):
    assert shared_budget(predictions) == 0.25
    reach = {"a": 0.1, "b": 0.2, "c": 0.2, "d": 0.5}  # three of four reach 0.2
    rows = [{"method": name, "budget": budget} for name in reach for budget in (0.1, 0.2, 0.5) if budget >= reach[name]]
    assert shared_budget(pd.DataFrame([{"method": "full", "budget": 1.0}, *rows])) == 0.2


def test_one_example_a_type_answered_correctly_where_possible(predictions):
    assert examples(predictions) == ["b", "c"]


def test_table(predictions):
    rows = table(predictions)
    assert list(rows.columns) == COLUMNS
    assert rows[["id", "method"]].to_numpy().tolist() == [
        ["b", "fastv"], ["b", "full"], ["b", "vispruner"], ["c", "fastv"], ["c", "full"], ["c", "vispruner"],
    ]  # fmt: skip
    assert rows.set_index(["id", "method"]).loc[("b", "full"), "budget"] == 1.0
    assert json.loads(rows.set_index(["id", "method"]).loc[("c", "vispruner"), "layers_per_token"]) == [
        0,
        4,
        0,
        0,
        4,
        0,
    ]


@pytest.mark.parametrize("methods", [["full"], ["vispruner", "fastv"]])
def test_needs_the_full_model_and_another_method(predictions, methods):
    with pytest.raises(ValueError, match="`full` and of at least one other"):
        table(predictions[predictions["method"].isin(methods)])


def test_tokens_made_by_merging_are_no_places_of_the_image() -> None:
    kept = [{"layer": 1, "indices": [0, 2, 4, 5]}]
    assert layers_per_token(kept, num_visual=4, layers=3).tolist() == [3, 1, 3, 1]


@pytest.mark.parametrize(
    ("merged", "expected"),
    [
        ([], [-1, -1, -1, -1, -1, -1]),
        ([(6, [0, 1]), (7, []), (8, [4])], [0, 0, -1, -1, 2, -1]),
        # Tokens that stay and take in others, two of them the same; the last one is made of all that is dropped.
        ([(1, [1, 2, 3]), (3, [3, 1, 2]), (6, [0, 2, 4, 5])], [2, 0, 0, 1, 2, 2]),
        # The first merged token is merged again.
        ([(6, [0, 1]), (7, [3, 6])], [1, 1, -1, 1, -1, -1]),
    ],
)
def test_which_token_each_one_went_into(merged, expected) -> None:
    rows = [{"token": token, "of": of} for token, of in merged]
    assert merged_into(rows, num_visual=6).tolist() == expected
