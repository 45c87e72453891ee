"""params.yaml: the committed one is valid, and every mistake is one line that says where it is and what is allowed."""

import copy
from pathlib import Path

import pytest
import yaml

from experiments.parameters.load import ParametersError, load_parameters

COMMITTED = Path(__file__).parents[3] / "params.yaml"


def write(tmp_path: Path, changes: dict[str, object], remove: str | None = None) -> Path:
    """The committed parameters with changes by dotted key."""
    values = copy.deepcopy(yaml.safe_load(COMMITTED.read_text()))
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section[last] = value
    if remove:
        stage, key = remove.split(".")
        del values[stage][key]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def problems(path: Path) -> str:
    with pytest.raises(ParametersError) as caught:
        load_parameters(path)
    return str(caught.value)


def test_committed_parameters_are_valid_and_complete():
    parameters = load_parameters(COMMITTED)
    assert parameters.model == "scenes-llava"
    assert parameters.evaluate.budgets == [1.0, 0.5, 0.333, 0.222, 0.111, 0.056]
    assert {"full", "random", "grid", "oracle", "vispruner", "sequential_prune", "fastv"} <= set(
        parameters.evaluate.methods
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("evalute", {}, "evalute: unknown key. Did you mean `evaluate`? The stages and keys at the top are: model"),
        ("evaluate.budget", [0.5], "evaluate.budget: unknown key. Did you mean `budgets`? The keys of `evaluate` are"),
        ("evaluate.budgets", [0.5, 1.5], "evaluate.budgets.1: got 1.5. Input should be less than or equal to 1."),
        ("evaluate.budgets", [0.0], "evaluate.budgets.0: got 0.0. Input should be greater than 0."),
        ("evaluate.budgets", [float("nan")], "evaluate.budgets.0: got nan."),
        ("evaluate.budgets", [], "evaluate.budgets: got []. List should have at least 1 item"),
        ("evaluate.budgets", [0.5, 0.5], "evaluate.budgets: [0.5, 0.5] lists a value twice"),
        ("evaluate.questions", -1, "evaluate.questions: got -1. Input should be greater than or equal to 0."),
        ("evaluate.questions", "600", "evaluate.questions: got '600'. Input should be a valid integer."),
        ("evaluate.batch_size", 0, "evaluate.batch_size: got 0. Input should be greater than or equal to 1."),
        ("evaluate.seed", True, "evaluate.seed: got True. Input should be a valid integer."),
        ("evaluate.benchmark", "scene", "evaluate.benchmark: unknown benchmark 'scene'. Did you mean `scenes`?"),
        ("evaluate.methods", {"fastvv": {}}, "evaluate.methods: unknown method 'fastvv'. Did you mean `fastv`?"),
        (
            "evaluate.methods",
            {"fastv": {"layer": 2}},
            "evaluate.methods: fastv: has no parameter 'layer'. Parameters: ",
        ),
        (
            "evaluate.methods",
            {"fastv": {"k": -1}},
            "evaluate.methods: fastv: k must be a whole number of at least 1, not -1",
        ),
        ("evaluate.methods", {"vispruner": {"keep": 9}}, "evaluate.methods: vispruner: `keep` follows from the budget"),
        ("evaluate.methods", {"fastv": 2}, "evaluate.methods.fastv: got 2. Input should be a valid dictionary."),
        ("accuracy.confidence", 95, "accuracy.confidence: got 95. Input should be less than 1."),
        ("capture_attention.seed", -1, "capture_attention.seed: got -1."),
        ("model", "llava-1.5", "model: 'llava-1.5' is neither a preset nor a folder. Did you mean"),
        ("model", "", "model: '' is neither a preset nor a folder."),
        ("model", 7, "model: got 7. Input should be a valid string."),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(tmp_path, key, value, expected):
    message = problems(write(tmp_path, {key: value}))
    assert expected in message
    assert message.count("\n") == 1, "one headline and one problem"


def test_a_folder_may_be_the_model(tmp_path):
    assert load_parameters(write(tmp_path, {"model": str(tmp_path)})).model == str(tmp_path)


def test_every_problem_is_listed_at_once(tmp_path):
    message = problems(write(tmp_path, {"evaluate.seed": -1, "accuracy.resamples": 0}, remove="evaluate.batch_size"))
    assert message.splitlines()[1:] == [
        "  evaluate.seed: got -1. Input should be greater than or equal to 0.",
        "  evaluate.batch_size: missing; add it.",
        "  accuracy.resamples: got 0. Input should be greater than or equal to 1.",
    ]


def test_files_that_hold_no_parameters(tmp_path):
    path = tmp_path / "params.yaml"
    assert "there is no such file" in problems(path)
    path.write_text("")
    assert "holds no sections" in problems(path)
    path.write_text("evaluate: [1,\n")
    assert "not readable as YAML" in problems(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "not readable as YAML" in problems(path)
