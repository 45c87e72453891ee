import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.conformance.__main__ import main
from tests.experiments.conformance.golden_cases import copy_llm, copy_vision, rewrite


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def nothing_in_it(folder: Path) -> None:
    shutil.rmtree(folder / "vision")


def no_files(folder: Path) -> None:
    (folder / "vision" / "vispruner_07.npz").unlink()


def truncated(folder: Path) -> None:
    path = folder / "vision" / "vispruner_07.npz"
    path.write_bytes(path.read_bytes()[:1000])


def no_archive(folder: Path) -> None:
    (folder / "vision" / "vispruner_07.npz").write_text("kept: 1, 2, 3")


def no_parameters(folder: Path) -> None:
    rewrite(folder / "vision" / "vispruner_07.npz", lambda arrays: arrays.pop("params"))


def broken_parameters(folder: Path) -> None:
    rewrite(folder / "vision" / "vispruner_07.npz", lambda arrays: arrays.update(params=np.array("{keep: 50")))


def parameters_are_a_list(folder: Path) -> None:
    rewrite(folder / "vision" / "vispruner_07.npz", lambda arrays: arrays.update(params=np.array("[50]")))


def missing_array(folder: Path) -> None:
    rewrite(folder / "vision" / "vispruner_07.npz", lambda arrays: arrays.pop("features"))


def missing_answer(folder: Path) -> None:
    rewrite(folder / "vision" / "vispruner_07.npz", lambda arrays: arrays.pop("kept"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_folder, "is not a folder"),
        (nothing_in_it, "holds no golden data"),
        (no_files, "holds no case"),
        (truncated, "vispruner_07.npz: cannot be read"),
        (no_archive, "vispruner_07.npz: cannot be read"),
        (no_parameters, "vispruner_07.npz: 'params' is missing"),
        (broken_parameters, "vispruner_07.npz: cannot be read"),
        (parameters_are_a_list, "'params' should be a JSON object"),
        (missing_array, "vispruner_07.npz: 'features' is missing"),
        (missing_answer, "vispruner_07.npz: 'kept' is missing"),
    ],
)
def test_a_damaged_folder_exits_2_and_says_where(damage, message, tmp_path, capsys):
    folder = copy_vision(tmp_path, "vispruner_07")
    damage(folder)
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""


def no_cases(folder: Path) -> None:
    (folder / "cases.json").write_text("[]")


def cut_cases(folder: Path) -> None:
    (folder / "cases.json").write_text((folder / "cases.json").read_text()[:-20])


def cases_are_no_list(folder: Path) -> None:
    (folder / "cases.json").write_text('{"id": 1}')


def no_model(folder: Path) -> None:
    shutil.rmtree(folder / "models")


def truncated_model(folder: Path) -> None:
    (path,) = folder.glob("models/*/model.safetensors")
    path.write_bytes(path.read_bytes()[:5000])


def no_inputs(folder: Path) -> None:
    (folder / "inputs_00.npz").unlink()


def no_logits(folder: Path) -> None:
    shutil.rmtree(folder / "logits")


def no_greedy(folder: Path) -> None:
    cases = json.loads((folder / "cases.json").read_text())
    del cases[0]["expected"]["greedy"]
    (folder / "cases.json").write_text(json.dumps(cases))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_cases, "holds no case"),
        (cut_cases, "cases.json: cannot be read as JSON"),
        (cases_are_no_list, "cases.json: should be a list"),
        (no_model, "there is no model"),
        (truncated_model, "the model cannot be loaded"),
        (no_inputs, "inputs_00.npz: cannot be read"),
        (no_logits, "fastv-round-K2-R0.5-in00.npz: cannot be read"),
        (no_greedy, "'greedy' is missing"),
    ],
)
def test_a_damaged_language_model_folder_exits_2_and_says_where(damage, message, tmp_path, capsys):
    folder = copy_llm(tmp_path, "fastv-round-K2-R0.5-in00")
    damage(folder)
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
