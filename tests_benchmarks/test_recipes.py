"""The recipes that ask lmms-eval's benchmarks, from the command to the table, on tiny models and a few questions."""

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.benchmarking import command, recipe
from experiments.benchmarking.command import SOURCES, Source
from experiments.benchmarking.named import BENCHMARKS, LMMS
from experiments.lmms import mmvet
from experiments.lmms.score import score
from experiments.lmms.tasks import TaskQuestions
from tests.benchmarking.test_recipes import save_modules
from tests.benchmarking.tiny_deep import save_llava, save_qwen

ROOT = Path(__file__).parents[1]
RECIPES = ["vispruner", "vispruner_figures", "sequential_prune", "glimpseprune_short_form", "glimpseprune_vstar"]
LAYERS = {"llava-1.5-7b": 32, "llava-1.5-13b": 40}


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["experiments.lmms", *map(str, arguments)])
    command.main(SOURCES | {LMMS: Source(TaskQuestions, score, mmvet.protocol())})


@pytest.mark.parametrize("name", RECIPES)
def test_from_the_command_to_the_table(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(ROOT)
    path, out = ROOT / f"recipes/{name}.yaml", tmp_path / "out"
    asked = recipe.load(path)
    options = ["--data", data, "--out", out, "--weights"]
    if asked.model in LAYERS:
        options += [save_llava(tmp_path / "model", LAYERS[asked.model])]
    else:
        options += [save_qwen(tmp_path / "model")]
        options += ["--modules", save_modules(tmp_path / "modules", tmp_path / "model")]
    run(monkeypatch, "run", path, *options)
    table = pd.read_csv(out / f"tables/{name}/table.csv", dtype=str, keep_default_na=False)
    numbers = pd.read_csv(out / f"tables/{name}/metrics.csv")
    assert len(table) == len(asked.settings)
    assert set(numbers["benchmark"]) == set(asked.benchmarks)
    columns = [name for name in table.columns if name.split(" ")[0] in BENCHMARKS]  # those published have a comma
    assert len(columns) == len(asked.benchmarks) and not (table[columns] == "–").any().any()
    written = {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")}
    # Everything is there: nothing is answered or scored again; and scores are made again of the answers alone.
    run(monkeypatch, "run", path, *options)
    assert written == {file: file.stat().st_mtime_ns for file in out.rglob("*.parquet")}
    for file in (out / "scores").rglob("*.parquet"):
        file.unlink()
    run(monkeypatch, "score", path, "--data", data, "--out", out)
    run(monkeypatch, "table", path, "--out", out)
    again = pd.read_csv(out / f"tables/{name}/table.csv", dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(table, again)


def test_scores_are_refused_for_other_questions(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "trial.yaml").write_text(
        f"title: Trial\nmodel: {save_llava(tmp_path / 'model', 2)}\nbenchmarks: {{pope: }}\nmethods: {{full: }}\n"
        "batch_size: 2\nmax_new_tokens: 4\n"
    )
    options = ["--data", data, "--out", tmp_path / "out"]
    run(monkeypatch, "answer", tmp_path / "trial.yaml", *options, "--limit", "4")
    with pytest.raises(SystemExit):
        run(monkeypatch, "score", tmp_path / "trial.yaml", *options)
    assert "other questions than now were answered; --limit or --data differ" in capsys.readouterr().err
    run(monkeypatch, "score", tmp_path / "trial.yaml", *options, "--limit", "4")


def test_mmvets_judge_is_asked_with_the_shipped_prompt(data: Path) -> None:
    protocol, question = mmvet.protocol(), TaskQuestions("mmvet", data).question(0)
    (message,) = protocol.messages(question, "x is -1")
    assert message["content"].startswith("Compare the ground truth and prediction from AI models")
    assert message["content"].endswith("\nWhat is x? | -1 <AND> -5 | x is -1 |")
    assert [protocol.score(reply) for reply in ("0.5", "1.0 because", "1.5", "good")] == [0.5, 1.0, None, None]
