"""The short grid on a second model, here a tiny Qwen2.5-VL whose images have two sizes."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments import second_model
from experiments.asking.downsample import grid_for, token_side
from experiments.testbed.vocabulary import build_processor
from tests.experiments import workspace
from tests.tiny_models import tiny_qwen2_5_vl
from tests.tiny_processors import save_tiny


def test_every_size_method_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.make(tmp_path, questions=6))
    save_tiny(tiny_qwen2_5_vl()[0], tmp_path / "second")
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["second_model"] |= {"model": "second", "image_sizes": [32, 16], "questions": 0, "batch_size": 4}
    parameters["second_model"] |= {"budgets": [1.0, 0.5, 0.25], "max_new_tokens": 3}
    parameters["second_model"]["downsample"] = False
    parameters["second_model"]["methods"] = {"full": {}, "random": {"seed": 0}, "fastv": {"k": 2, "rounding": "round"}}
    workspace.write_parameters(tmp_path, parameters)
    monkeypatch.setattr(sys, "argv", ["second_model"])
    second_model.main()

    table = pd.read_csv(second_model.RESULT)
    overall = table[table["type"] == "all"]
    cells = [["full", 1.0], ["random", 0.5], ["random", 0.25], ["fastv", 0.5], ["fastv", 0.25]]
    assert overall[["image_size", "method", "budget"]].to_numpy().tolist() == [
        [side, *cell] for side in (32, 16) for cell in cells
    ]
    # Images of 32 and 16 pixels are 8x8 and 4x4 patches, merged to 16 and 4 visual tokens.
    found = overall.set_index(["image_size", "method", "budget"])
    assert found["mean_visual_tokens"].xs("random", level="method").tolist() == [8, 4, 2, 1]
    assert found["mean_visual_tokens"].xs("full", level="method").tolist() == [16, 4]
    refused = overall[~overall["feasible"].astype(bool)]
    assert set(refused["method"]) == {"fastv"} and set(refused["budget"]) == {0.25}
    assert refused["n"].eq(0).all() and refused["accuracy"].isna().all()
    assert refused["floor"].to_numpy() == pytest.approx([16 / 3, 4 / 3]), "two of six layers see every token"
    reached = table[table["feasible"].astype(bool)]
    assert set(reached["type"]) == {"all", "attribute", "counting"}
    assert (reached["flops_to_full"] <= 1).all() and (reached.query("method == 'full'")["flops_to_full"] == 1).all()
    assert (reached.query("method == 'random' and budget == 0.5 and type == 'all'")["n"] == 4).all()


def test_fewer_pixels_stand_beside_the_methods_and_sort_the_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace.make(tmp_path, questions=12))
    save_tiny(tiny_qwen2_5_vl()[0], tmp_path / "second")
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["second_model"] |= {"model": "second", "image_sizes": [16, 32], "questions": 0, "batch_size": 4}
    parameters["second_model"] |= {"budgets": [1.0, 0.5, 0.25], "max_new_tokens": 3, "downsample": True}
    parameters["second_model"]["methods"] = {"full": {}, "random": {"seed": 0}}
    workspace.write_parameters(tmp_path, parameters)
    monkeypatch.setattr(sys, "argv", ["second_model"])
    second_model.main()

    table = pd.read_csv(second_model.RESULT).query("type == 'all' and image_size == 32")
    fewer = table[table["method"] == "downsample"].set_index("budget")
    assert fewer["mean_visual_tokens"].to_dict() == {0.5: 8, 0.25: 4}  # of 4 x 4 tokens: 4 x 2 and 2 x 2
    pruned = table[table["method"] == "random"].set_index("budget")
    assert (fewer["flops_to_full"] < pruned["flops_to_full"]).all(), "the tower sees fewer patches, too"
    difficult = pd.read_csv(second_model.DIFFICULT)
    assert difficult[["method", "budget", "group"]].to_numpy().tolist() == [
        ["random", budget, group] for budget in (0.5, 0.25) for group in ("difficult", "easy")
    ]
    for budget, rows in difficult.groupby("budget"):
        counts = rows.set_index("group")["n"]
        assert counts.sum() == fewer.loc[budget, "n"]
        assert counts["easy"] == round(fewer.loc[budget, "accuracy"] * fewer.loc[budget, "n"])


@pytest.mark.parametrize(
    ("grid", "budget", "expected"),
    [((12, 12), 0.111, (4, 4)), ((12, 12), 0.333, (7, 7)), ((16, 4), 0.25, (8, 2)), ((5, 5), 0.04, (1, 1))],
)
def test_grids_of_fewer_tokens_keep_the_aspect(grid, budget, expected) -> None:
    assert grid_for(*grid, budget) == expected


@pytest.mark.parametrize(("budget", "expected"), [(0.222, (4, 4)), (0.111, (4, 4)), (0.333, (4, 5))])
def test_grids_stay_above_what_the_processor_would_scale_up(budget, expected) -> None:
    assert grid_for(8, 8, budget, fewest=16) == expected  # 14.2 asked of 64: 3 x 5 would come back as 24


def test_a_model_of_one_image_size_is_refused_before_anything_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace.make(tmp_path, questions=4))
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["second_model"] |= {"model": "tiny", "image_sizes": [24], "questions": 0, "batch_size": 4}
    parameters["second_model"] |= {"budgets": [0.5], "downsample": True, "methods": {"random": {"seed": 0}}}
    workspace.write_parameters(tmp_path, parameters)
    monkeypatch.setattr(sys, "argv", ["second_model"])
    with pytest.raises(SystemExit, match="1"):
        second_model.main()
    shown = capsys.readouterr().err
    assert "set downsample to false" in shown and "question/s" not in shown


def test_models_of_one_image_size_are_refused() -> None:
    with pytest.raises(ValueError, match="such as Qwen2.5-VL; this one scales every image to the same size"):
        token_side(build_processor())
