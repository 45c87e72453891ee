"""Stored answers: what they are; nothing finished is asked again, shards make a whole, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import pruning
from experiments.asking.inputs import build_inputs
from experiments.asking.models import load
from experiments.benchmarking import stored
from experiments.benchmarking.answer import Asked, answer, runs_of
from experiments.benchmarking.questions import QuestionsError
from experiments.benchmarking.settings import Setting, settings_of
from experiments.benchmarking.stored import Run
from experiments.benchmarking.viscot import VisualCoT
from experiments.recorded import cells
from tests.benchmarking.tiny_deep import write_visual_cot
from tests.tiny_models import tiny_llava, tiny_qwen2_5_vl
from tests.tiny_processors import save_tiny

ROOT = Path(__file__).parents[2]
SETTINGS = [
    *settings_of("full", {}, "tiny"),
    *settings_of("vispruner", {"budgets": [0.5, 0.25]}, "tiny"),
    *settings_of("fastv", {"budgets": [0.75, 0.25]}, "tiny"),
]
ASKED = Asked("tiny", "crop", "none", batch_size=2, max_new_tokens=3)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_tiny(tiny_llava()[0], tmp_path_factory.mktemp("llava"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_visual_cot(tmp_path / "data", "cub", 37, ((40, 24), (24, 40), (30, 30)))


def ask(
    model: Path,
    data: Path,
    out: Path,
    settings: list[Setting] = SETTINGS,
    asked: Asked = ASKED,
    shard: tuple[int, int] = (0, 1),
) -> dict[str, Run]:
    """Answer the questions; the runs by method and setting."""
    loaded, processor = load(str(model), device="cpu")
    questions = VisualCoT("viscot_cub", data)
    runs = runs_of(settings, questions, loaded, cells.model_digest(loaded), asked, out)
    answer(runs, questions, loaded, processor, asked, shard)
    return {f"{run.description['method']}/{run.description['setting']}": run for run in runs}


def written(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("part-*.parquet")}


def test_answers_are_those_of_each_question_alone(llava: Path, data: Path, tmp_path: Path) -> None:
    runs = ask(llava, data, tmp_path / "out")
    model, processor = load(str(llava), device="cpu")
    questions = VisualCoT("viscot_cub", data)
    table = runs["vispruner/budget-0.25"].read()
    assert table["row"].tolist() == list(range(37)) and table["reason"].isna().all()
    for row in (0, 1, 36):
        inputs = build_inputs(processor, [questions.image(row)], [questions.question(row).prompt])
        with pruning.make("vispruner", keep=9)(model) as record, torch.inference_mode():
            tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
        text = processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
        assert table["prediction"][row] == text
        assert table["visual_tokens_per_layer"][row].tolist() == record.visual_tokens[0] == [9] * 6
    assert json.loads(table["parameters"][0])["keep"] == 9
    assert (table["answer"] == [f"red {number}" for number in range(37)]).all()
    assert (table["seconds"] > 0).all()


def test_partitions_are_read_by_pandas_as_one_table(llava: Path, data: Path, tmp_path: Path) -> None:
    ask(llava, data, tmp_path / "out", settings_of("vispruner", {"budgets": [0.5, 0.25]}, "tiny"))
    whole = pd.read_parquet(tmp_path / "out/answers", filters=[("setting", "=", "budget-0.5")])
    assert len(whole) == 37 and set(whole["model"]) == {"tiny"} and set(whole["benchmark"]) == {"viscot_cub"}


def test_what_cannot_be_reached_has_a_reason_and_no_answer(llava: Path, data: Path, tmp_path: Path) -> None:
    """FastV at k=2 of 6 layers keeps a third at least."""
    table = ask(llava, data, tmp_path / "out")["fastv/budget-0.25"].read()
    assert table["prediction"].isna().all() and table["reason"].str.contains("its floor is 12.0").all()


def test_one_small_image_does_not_make_a_setting_infeasible(tmp_path: Path) -> None:
    """Qwen: 9 visual tokens are too few for the layers that VisionZip asks for; larger images are answered."""
    torch.manual_seed(0)
    model = save_tiny(tiny_qwen2_5_vl()[0], tmp_path / "qwen")
    data = write_visual_cot(tmp_path / "data", "cub", 12, ((16, 16), (64, 48), (48, 64)))
    settings = settings_of("vispruner", {"settings": {"keep-10": {"keep": 10}}}, "tiny")
    (run,) = ask(model, data, tmp_path / "out", settings).values()
    table = run.read()
    few = table["visual_tokens"] < 10
    assert 0 < few.sum() < 12 and table["prediction"].isna().tolist() == few.tolist()
    assert table["reason"][few].str.contains("keep=10 is above the").all()


def test_finished_parts_are_not_asked_again(llava: Path, data: Path, tmp_path: Path) -> None:
    ask(llava, data, tmp_path / "out", SETTINGS[:2])
    first = written(tmp_path / "out")
    assert len(first) == 2 * 2  # 37 questions in batches of 2: two parts of each of two settings
    runs = ask(llava, data, tmp_path / "out", SETTINGS[:3])
    both = written(tmp_path / "out")
    assert first.items() <= both.items() and len(both) == 3 * 2
    runs["full/full"].part(1).unlink()
    ask(llava, data, tmp_path / "out", SETTINGS[:3])
    again = written(tmp_path / "out")
    assert {path for path in again if again[path] != both.get(path)} == {runs["full/full"].part(1)}


@pytest.mark.parametrize("change", [{"max_new_tokens": 2}, {"image": "pad"}, {"system": "vicuna"}, {"batch_size": 3}])
def test_another_way_of_asking_overwrites_nothing(llava: Path, data: Path, tmp_path: Path, change: dict) -> None:
    ask(llava, data, tmp_path / "out", SETTINGS[:1])
    before = written(tmp_path / "out")
    asked = Asked(**{**vars(ASKED), **change})
    loaded, processor = load(str(llava), device="cpu")
    questions = VisualCoT("viscot_cub", data)
    runs = runs_of(SETTINGS[:1], questions, loaded, cells.model_digest(loaded), asked, tmp_path / "out")
    answer(runs, questions, loaded, processor, asked)
    after = written(tmp_path / "out")
    assert before.items() <= after.items() and len(after) > len(before)
    chosen, notes = stored.newest(tmp_path / "out")
    assert [run.folder for run in chosen] == [run.folder for run in runs]
    assert notes == [f"tiny/viscot_cub/full/full: {next(iter(before)).parent.name} is older and not shown"]


def test_shards_together_are_the_whole(llava: Path, data: Path, tmp_path: Path) -> None:
    whole = ask(llava, data, tmp_path / "one", SETTINGS[:2])
    for number in (1, 0):
        ask(llava, data, tmp_path / "two", SETTINGS[:2], shard=(number, 2))
        if number == 1:
            assert {path.name for path in written(tmp_path / "two")} == {"part-00001.parquet"}
            with pytest.raises(FileNotFoundError, match="1 of 2 parts are missing"):
                next(stored.runs(tmp_path / "two")).read()
    for run in stored.runs(tmp_path / "two"):
        name = f"{run.description['method']}/{run.description['setting']}"
        assert run.folder.name == whole[name].folder.name
        same = whole[name].read().drop(columns="seconds")
        pd.testing.assert_frame_equal(run.read().drop(columns="seconds"), same)


def test_kept_tokens_are_stored_where_asked_for(llava: Path, data: Path, tmp_path: Path) -> None:
    settings = SETTINGS[1:2]
    (run,) = ask(llava, data, tmp_path / "out", settings, Asked(**{**vars(ASKED), "kept": True})).values()
    table = run.read()
    assert all(len(kept[0]["indices"]) == 18 for kept in table["kept"])
    (without,) = ask(llava, data, tmp_path / "out", settings).values()
    assert without.read()["kept"].isna().all()


def test_the_oracle_gets_the_boxes_of_visual_cot(llava: Path, data: Path, tmp_path: Path) -> None:
    """The box is the upper left quarter: 3 x 3 of the 6 x 6 tokens."""
    settings = settings_of("oracle", {"settings": {"keep-9": {"keep": 9, "seed": 0}}}, "tiny")
    (run,) = ask(llava, data, tmp_path / "out", settings, Asked(**{**vars(ASKED), "kept": True})).values()
    for kept in run.read()["kept"]:
        assert sorted(kept[0]["indices"]) == [0, 1, 2, 6, 7, 8, 12, 13, 14]


def test_a_method_that_wants_boxes_is_refused_without_them(llava: Path, data: Path, tmp_path: Path) -> None:
    loaded, _ = load(str(llava), device="cpu")

    class Without(VisualCoT):
        def question(self, row: int) -> Any:
            return self._asked[row]

    with pytest.raises(QuestionsError, match="oracle needs evidence boxes, which viscot_cub has not"):
        settings = settings_of("oracle", {"budgets": [0.5]}, "tiny")
        runs_of(settings, Without("viscot_cub", data), loaded, "digest", ASKED, tmp_path)


def test_timed_settings_run_alone(llava: Path, data: Path, tmp_path: Path) -> None:
    together = ask(llava, data, tmp_path / "out", SETTINGS[:2])
    alone = ask(llava, data, tmp_path / "out", SETTINGS[:2], Asked(**{**vars(ASKED), "timed": True}))
    for name, run in together.items():
        pd.testing.assert_series_equal(run.read()["prediction"], alone[name].read()["prediction"])
    seconds = [run.read()["seconds"] for run in alone.values()]
    assert not seconds[0].equals(seconds[1]), "both have the time of the two together"


def test_kill_9_loses_no_finished_part(llava: Path, tmp_path: Path) -> None:
    write_visual_cot(tmp_path / "data", "cub", 80)
    (tmp_path / "recipe.yaml").write_text(
        f"title: Trial\nmodel: {llava}\nbenchmarks: {{viscot_cub: }}\nmethods: {{full: }}\nbatch_size: 1\n"
        "max_new_tokens: 3\njudge: {url: 'http://localhost:1/v1', model: m}\n"
    )
    command = [
        sys.executable,
        "-m",
        "experiments.benchmarking",
        "answer",
        "recipe.yaml",
        "--data",
        "data",
        "--out",
        "out",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not written(tmp_path / "out"):
        assert process.poll() is None, "ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = written(tmp_path / "out")
    assert 0 < len(finished) < 5
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, stderr=subprocess.DEVNULL)
    assert finished.items() <= written(tmp_path / "out").items()
    (run,) = stored.runs(tmp_path / "out")
    assert len(run.read()) == 80
