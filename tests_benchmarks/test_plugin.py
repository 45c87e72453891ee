"""This project as a model of lmms-eval: from its own command line, in one process and in two."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.benchmarking import scored, stored
from experiments.benchmarking.recipe import Recipe
from experiments.lmms.tasks import TASKS, local_files
from tests.benchmarking.tiny_deep import save_llava

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llava(tmp_path_factory.mktemp("llava"), layers=4)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder with lmms-eval's own task files, their data taken from local files."""
    folder = tmp_path_factory.mktemp("tasks")
    for name, path, split in (("pope", "pope/pope", "test"), ("vqav2_val", "vqav2/vqav2_val", "validation")):
        files = local_files(name, {"test_split": split, "dataset_path": ""}, data)
        config = {"include": str(TASKS / f"{path}.yaml"), "task": f"local_{name}", "dataset_path": "parquet"}
        config |= {"dataset_name": None, "dataset_kwargs": {"data_files": {split: [str(file) for file in files]}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


def evaluate(launcher: list[str], llava: Path, tasks: Path, out: Path, cache: Path, *arguments: str) -> dict[str, Any]:
    """The results of `python -m lmms_eval`, and its samples by question."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    options = ["--model", "pruned", "--include_path", str(tasks), "--output_path", str(out), "--log_samples"]
    options += ["--batch_size", "2", "--device", "cpu", *arguments]
    command = [*launcher, "-m", "lmms_eval", *options]
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (results,) = out.rglob("*_results.json")
    found: dict[str, Any] = json.loads(results.read_text())["results"]
    for file in out.rglob("*_samples_*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        name = file.stem.partition("_samples_")[2]
        found[f"samples of {name}"] = {row["doc_id"]: row["filtered_resps"] for row in rows}
    return found


def test_one_and_two_processes_answer_as_the_recipe_does(
    llava: Path, tasks: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from experiments.benchmarking import command
    from experiments.benchmarking.command import SOURCES, Source
    from experiments.benchmarking.named import LMMS
    from experiments.lmms.score import score
    from experiments.lmms.tasks import TaskQuestions

    given = f"pretrained={llava},method=vispruner,budget=0.1111"
    found = []
    for number, launcher in enumerate(
        ([sys.executable], [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"])
    ):
        out = tmp_path / str(number)
        out.mkdir()
        names = ",".join(f"local_{name}" for name in ("pope", "vqav2_val"))
        found.append(evaluate(launcher, llava, tasks, out, tmp_path / "cache", "--model_args", given, "--tasks", names))
    one, two = found
    for key in ("samples of local_pope", "samples of local_vqav2_val"):
        assert len(one[key]) == {"pope": 6, "vqav2_val": 3}[key.partition("local_")[2]] and one[key] == two[key]
    assert one["local_pope"]["pope_accuracy,none"] == two["local_pope"]["pope_accuracy,none"]

    recipe = Recipe.model_validate(
        {
            "title": "The same",
            "model": str(llava),
            "benchmarks": {"pope": None, "vqav2_val": None},
            "methods": {"vispruner": {"budgets": [0.1111]}},
            "batch_size": 2,
            "max_new_tokens": 128,
        }
    )
    sources = SOURCES | {LMMS: Source(TaskQuestions, score, None)}
    command.ask(recipe, sources, tmp_path / "out", data, None, (0, 1), 0)
    command.score(recipe, sources, tmp_path / "out", data, 0)
    for run in stored.runs(tmp_path / "out"):
        name = run.description["benchmark"]
        answers = run.read()
        assert dict(zip(answers["row"], answers["prediction"], strict=True)) == {
            int(row): text for row, text in one[f"samples of local_{name}"].items()
        }
        metric = {"pope": "pope_accuracy", "vqav2_val": "exact_match"}[name]
        total = scored.told(tmp_path / "out", run)["totals"][metric]
        assert total == pytest.approx(one[f"local_{name}"][f"{metric},none"])


def test_settings_are_read_and_refused() -> None:
    from experiments.lmms.plugin import Pruned

    with pytest.raises(ValueError, match="vispruner has no setting for 99 tokens"):
        Pruned("llava-1.5-7b", method="vispruner", tokens=99)
    with pytest.raises(ValueError, match="unknown method 'vispruned'"):
        Pruned("llava-1.5-7b", method="vispruned", budget=0.5)


def test_parameters_from_a_file(llava: Path, tmp_path: Path) -> None:
    from experiments.lmms.plugin import Pruned

    (tmp_path / "own.json").write_text('{"k": 2, "r": 0.5}')
    model = Pruned(str(llava), method="fastv", parameters=str(tmp_path / "own.json"), batch_size="4", device="cpu")
    assert model.prepared.method(576).written()["r"] == 0.5 and model.batch_size == 4  # type: ignore[union-attr]
