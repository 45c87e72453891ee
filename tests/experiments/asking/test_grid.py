"""Many variants on one subset, and the stages that are made of them."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments import ablation, quartile_kept, reading_depth, score_kept
from experiments.asking import grid
from experiments.asking.grid import PARTS, Variant
from experiments.parameters.load import ParametersError, load_parameters
from pruning.methods.fastv import FastV
from pruning.methods.full import Full
from tests.experiments import workspace

VARIANTS = [
    Variant({"k": None}, Full, {}),
    Variant({"k": 2}, FastV, {"k": 2, "r": 0.5}),
    Variant({"k": 6}, FastV, {"k": 6, "r": 0.5}),  # the tiny model has layers 0..5
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    workspace.make(tmp_path, questions=12)
    change(tmp_path, "quartile_kept", {"questions": 6, "seed": 0, "layers": [0, 5]})
    change(tmp_path, "reading_depth", {"questions": 6, "seed": 0})
    change(tmp_path, "score_kept", {"questions": 6, "seed": 0, "keep": 5})
    grids = {"sequential_prune": {"step": [25, 10], "k": [1, 4], "r": [0.5]}, "fastv": {"k": [1, 2], "r": [0.5]}}
    change(tmp_path, "ablation", {"questions": 6, "seed": 0, "grids": grids})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(folder: Path, section: str, values: dict[str, object]) -> None:
    parameters = yaml.safe_load((folder / "params.yaml").read_text())
    parameters[section] = values
    workspace.write_parameters(folder, parameters)


def measured() -> pd.DataFrame:
    parameters = load_parameters()
    return grid.measure("here", VARIANTS, parameters.ablation, parameters)


def run(monkeypatch: pytest.MonkeyPatch, main, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    main()


def test_every_variant_has_its_rows_and_one_that_does_not_fit_its_reason(folder: Path) -> None:
    table = measured()
    assert table["type"].tolist() == ["all", "attribute", "counting"] * 3
    fits = table[table["feasible"]]
    assert fits["n"].tolist() == [6, 3, 3] * 2
    assert fits["mean_visual_tokens"].tolist() == [36.0] * 3 + [24.0] * 3
    assert (fits["ci_low"] <= fits["accuracy"]).all() and (fits["accuracy"] <= fits["ci_high"]).all()
    refused = table[~table["feasible"]]
    assert set(refused["reason"]) == {"k=6 is not in front of any of the 6 decoder layers: lower k"}
    assert refused["accuracy"].isna().all() and refused["n"].eq(0).all()


def test_an_interrupted_run_takes_up_where_it_was(folder: Path) -> None:
    table = measured()
    done, lost = sorted((PARTS / "here").iterdir())
    made = done.stat().st_mtime_ns
    lost.unlink()
    pd.testing.assert_frame_equal(measured(), table)
    assert lost.exists() and done.stat().st_mtime_ns == made
    parameters = load_parameters()
    grid.measure("here", VARIANTS[:2], parameters.ablation, parameters)
    assert len(list((PARTS / "here").iterdir())) == 4, "other variants are other parts"


def test_quartile_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, quartile_kept.main)
    table = pd.read_csv(quartile_kept.RESULT)
    rows = table[table["type"] == "all"]
    assert rows["method"].tolist() == ["full"] + ["keep_quartile"] * 8
    assert rows["mean_visual_tokens"].tolist() == [36] + [9] * 4 + [(36 * 5 + 9) / 6] * 4
    assert rows["layer"].tolist()[1:] == [0] * 4 + [5] * 4 and rows["quartile"].tolist()[1:] == [1, 2, 3, 4] * 2


def test_reading_depth_goes_from_the_first_layer_to_the_unpruned_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, reading_depth.main)
    rows = pd.read_csv(reading_depth.RESULT).query("type == 'all'")
    assert rows["layer"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert rows["method"].tolist() == ["withdraw"] * 6 + ["full"]
    assert rows["mean_visual_tokens"].tolist() == [36 * layer / 6 for layer in range(7)]


def test_score_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, score_kept.main)
    rows = pd.read_csv(score_kept.RESULT).query("type == 'all'")
    assert rows["score"].tolist() == ["full", "last", "equi_last", "random", "cls"]
    assert rows["mean_visual_tokens"].tolist() == [36] + [5] * 4


def test_ablation_runs_the_whole_grid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch, ablation.main, "sequential_prune")
    rows = pd.read_csv(ablation.RESULTS / "sequential_prune.csv").query("type == 'all'")
    assert rows[["step", "k"]].iloc[1:].to_numpy().tolist() == [[25, 1], [25, 4], [10, 1], [10, 4]]
    assert rows["feasible"].tolist() == [True, True, True, True, False]
    assert rows["reason"].iloc[-1].startswith("k=4 and 5 steps do not fit 6 layers")
    assert rows["mean_visual_tokens"].tolist()[:3] == [36, (36 + 27 + 18 * 4) / 6, (36 * 4 + 27 + 18) / 6]


def test_ablation_of_what_is_not_asked_for_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run(monkeypatch, ablation.main, "vispruner")
    assert "'vispruner' is not in params.yaml's ablation.grids: sequential_prune, fastv" in capsys.readouterr().err
    change(folder, "ablation", {"questions": 6, "seed": 0, "grids": {"fastv": {"ratio": [0.5]}}})
    with pytest.raises(ParametersError, match="unknown parameter of fastv 'ratio'.* Known: mode, k, r, rounding"):
        load_parameters()
