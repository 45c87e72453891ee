"""Answers of every method at every budget: what is written, and that no finished cell is lost or wrongly reused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml

import pruning
from experiments import evaluate
from experiments.asking import benchmarks, models
from experiments.asking.inputs import build_inputs
from experiments.parameters.load import load_parameters
from tests.experiments import workspace

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return workspace.make(tmp_path)


def run(name: str, **changes: Any) -> pd.DataFrame:
    """Evaluate a method in the current folder, with changed parameters, and read what was written."""
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["evaluate"] |= changes
    workspace.write_parameters(Path(), parameters)
    checked = load_parameters()
    evaluate.evaluate([name], checked.model, checked.evaluate)
    return pq.read_table(f"results/predictions/{name}.parquet").to_pandas()


def cells(name: str) -> list[dict[str, Any]]:
    return json.loads(Path(f"results/predictions/{name}.json").read_text())


def parts(name: str) -> dict[str, int]:
    """Finished cells and when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in Path("results/parts", name).glob("*.parquet")}


def test_predictions_table(folder: Path) -> None:
    table = run("fastv", budgets=[0.75, 0.5])
    assert list(table.columns) == evaluate.SCHEMA.names
    ids = [f"q{number:03d}" for number in range(12) if number % 3 < 2]
    assert table["id"].tolist() == ids * 2
    assert table["budget"].tolist() == [0.75] * 8 + [0.5] * 8
    assert set(table["type"]) == {"attribute", "counting"}
    for row in table.itertuples():
        counts = list(row.visual_tokens_per_layer)
        assert row.visual_tokens == 36 and counts[:2] == [36, 36] and len(counts) == 6
        assert sum(counts) / 6 == pytest.approx(row.budget * 36, abs=0.5)
        (change,) = row.kept
        assert change["layer"] == 2 and len(change["indices"]) == counts[2]
        assert row.correct == (row.prediction.lower() == row.answer.lower())
        assert json.loads(row.parameters)["k"] == 2
        assert row.evidence.tolist() == [0, 1, 2, 6, 7, 8], "the box covers the upper left 3x2 of the 6x6 tokens"
        assert row.flops["choosing"] > 0 and row.flops["decoder"] < row.flops["total"] < row.flops["full"]


def test_a_batch_answers_as_each_question_alone(folder: Path) -> None:
    table = run("random", budgets=[1.0, 0.5]).set_index("id")
    model, processor = models.load("tiny")
    for question in benchmarks.load("scenes"):
        inputs = build_inputs(processor, [question["image"]], [question["question"]])
        with pruning.make("random", keep=18, seed=0)(model) as record, torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        row = table.loc[question["id"]]
        assert (
            row["prediction"]
            == processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        )
        assert row["kept"][0]["indices"].tolist() == record.kept[0][0].tolist()
        assert row["text_tokens"] + 36 == inputs["input_ids"].shape[1]


def test_full_keeps_everything_and_runs_once(folder: Path) -> None:
    table = run("full", budgets=[0.5])
    assert set(table["budget"]) == {1.0} and table["kept"].map(len).eq(0).all()


def test_oracle_keeps_the_evidence_of_each_question(folder: Path) -> None:
    table = run("oracle", methods={"oracle": {"seed": 0}}, budgets=[0.25])
    # The box covers the upper left 3x2 of the 6x6 tokens; 9 tokens are kept.
    for kept in table["kept"]:
        assert {0, 1, 2, 6, 7, 8} < set(kept[0]["indices"].tolist())


def test_a_pair_of_methods_is_solved_and_written_down(folder: Path) -> None:
    pair = [{"name": "oracle", "seed": 1}, {"name": "fastv", "k": 3, "r": 0.5}]
    table = run("sequence", methods={"sequence": {"methods": pair}}, budgets=[0.25])
    settings = json.loads(table["parameters"][0])
    assert settings["keep"] == 12 and [part["name"] for part in settings["methods"]] == ["oracle", "fastv"]
    assert pruning.make("sequence", **settings).visual_tokens_per_layer(36, 6) == [12, 12, 12, 6, 6, 6]
    for row in table.itertuples():
        assert list(row.visual_tokens_per_layer) == [12, 12, 12, 6, 6, 6]
        assert {0, 1, 2, 6, 7, 8} < set(row.kept[0]["indices"].tolist()), "the oracle was not told its boxes"


def test_budgets_out_of_reach_are_recorded_with_the_floor(folder: Path) -> None:
    table = run("fastv", budgets=[0.75, 0.25])
    reached, missed = cells("fastv")
    facts = {"role": "inside", "budget_parameter": "r"}
    assert reached == {"method": "fastv", "budget": 0.75, "feasible": True, "floor": None} | facts
    assert missed["feasible"] is False and missed["floor"] == pytest.approx(2 / 6 * 36, abs=1)
    assert set(table["budget"]) == {0.75}


def test_methods_together_answer_as_each_alone(folder: Path) -> None:
    alone = {name: run(name) for name in ("full", "random", "fastv")}
    for path in Path("results").rglob("*.parquet"):
        path.unlink()
    checked = load_parameters()
    evaluate.write(checked, [])
    for name, table in alone.items():
        pd.testing.assert_frame_equal(table, pq.read_table(f"results/predictions/{name}.parquet").to_pandas())


def test_batches_side_by_side_change_nothing(folder: Path) -> None:
    alone = run("fastv")
    for part in Path("results/parts/fastv").iterdir():
        part.unlink()
    torch.set_num_threads(3)
    together = run("fastv")
    assert torch.get_num_threads() == 3
    pd.testing.assert_frame_equal(alone, together)


def test_finished_cells_are_used_again_until_something_they_depend_on_changes(folder: Path) -> None:
    run("random", budgets=[0.5])
    first = parts("random")
    assert len(first) == 1
    run("random", budgets=[0.5, 0.25])
    both = parts("random")
    assert len(both) == 2 and first.items() <= both.items()

    known = both
    changes: list[dict[str, Any]] = [
        {"methods": {"random": {"seed": 1}}},
        {"max_new_tokens": 2},
        {"questions": 4},
        {"questions": 4, "seed": 1},
    ]
    for change in changes:
        run("random", **change)
        assert len(parts("random")) == len(known) + 2, f"{change} used cells of other parameters"
        known = parts("random")
    model, _ = models.load("tiny")
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained("tiny")
    run("random")
    assert len(parts("random")) == len(known) + 2, "cells of another model's weights were used"


def test_other_images_under_the_same_ids_are_other_cells(folder: Path) -> None:
    run("random", budgets=[0.5])
    workspace.write_benchmark(folder / "data/scenes/evaluation.parquet", 12, seed=1)
    run("random", budgets=[0.5])
    assert len(parts("random")) == 2


def start(method: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "experiments.evaluate", method]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def test_kill_9_loses_no_finished_part(folder: Path) -> None:
    """Forty questions one by one are ten parts of each budget; what is finished is finished for every budget."""
    workspace.write_benchmark(folder / "data/scenes/evaluation.parquet", 60)
    options = {"budgets": [0.75, 0.5], "batch_size": 1}
    uninterrupted = run("random", **options)
    whole = len(parts("random"))
    assert whole == 20
    for file in [*Path("results/parts/random").iterdir(), *Path("results/predictions").iterdir()]:
        file.unlink()

    process = start("random")
    while not parts("random"):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = parts("random")
    assert 0 < len(finished) < whole
    assert not Path("results/predictions/random.parquet").exists()

    resumed = run("random")
    assert finished.items() <= parts("random").items(), "a finished part was run again"
    assert len(parts("random")) == whole
    pd.testing.assert_frame_equal(resumed, uninterrupted)


@pytest.mark.parametrize(
    ("changes", "method", "message"),
    [
        ({}, "vispruner", "not in params.yaml's evaluate.methods: full, random, fastv"),
        ({"methods": {"fastv": {"layer": 2}}}, "fastv", "no parameter 'layer'"),
        ({"methods": {"fastv": {"k": 99}}}, "fastv", "k=99"),
        ({"questions": 500}, "random", "500 questions asked for, but the benchmark has 8"),
        ({"budgets": [0.5, 1.5]}, "random", "budgets"),
        ({"budgets": ["half"]}, "random", "budgets"),
    ],
)
def test_bad_parameters_are_one_clear_error_and_nothing_is_written(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    changes: dict,
    method: str,
    message: str,
) -> None:
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["evaluate"] |= changes
    workspace.write_parameters(folder, parameters)
    monkeypatch.setattr(sys, "argv", ["evaluate", method])
    with pytest.raises(SystemExit) as caught:
        evaluate.main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert "error: " in error and message in error and "Traceback" not in error
    assert not [path for path in Path().rglob("results/**/*") if path.is_file()]
