"""The short grid on a second model, here a tiny Qwen2.5-VL whose images have two sizes."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments import second_model
from tests.experiments import workspace
from tests.tiny_models import tiny_qwen2_5_vl
from tests.tiny_processors import save_tiny


def test_every_size_method_and_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workspace.make(tmp_path, questions=6))
    save_tiny(tiny_qwen2_5_vl()[0], tmp_path / "second")
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters["second_model"] |= {"model": "second", "image_sizes": [32, 16], "questions": 0, "batch_size": 4}
    parameters["second_model"] |= {"budgets": [1.0, 0.5, 0.25], "max_new_tokens": 3}
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
