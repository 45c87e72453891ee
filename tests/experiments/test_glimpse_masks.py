"""GlimpsePrune's masks against the evidence, on the workspace's tiny model with random modules."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments import glimpse_depth, glimpse_masks
from experiments.probing import masks
from pruning.glimpse import checkpoint
from tests.experiments import workspace
from tests.pruning.glimpse.tiny_glimpse import tiny_modules
from tests.tiny_models import tiny_llava


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(workspace.make(tmp_path, questions=6))
    checkpoint.save(tiny_modules(tiny_llava()[0]), "modules")
    change("glimpse_masks", "modules", {"tiny": "modules"})
    change("glimpse_masks", "thresholds", [])
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["glimpse_masks"])
    glimpse_masks.main()


def change(section: str, key: str, value: object) -> None:
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    parameters[section][key] = value
    workspace.write_parameters(Path(), parameters)


def test_caps_hold_and_means_are_those_of_the_questions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change("glimpse_masks", "caps", [1.0, 0.25])
    run(monkeypatch)
    questions = pd.read_csv(glimpse_masks.QUESTIONS)
    assert questions["cap"].tolist() == [1.0] * 4 + [0.25] * 4, "two attributes and two countings; captions are none"
    by_cap = questions.set_index(["cap", "id"])["kept_share"]
    assert (by_cap[0.25] <= 0.25).all() and (by_cap[1.0] > 0.25).any()
    assert by_cap[1.0].nunique() > 1, "how many stay depends on the image and the question"
    # 3 of 6 columns and 2 of 6 rows are evidence; layers 0..2 see all 36 tokens, 3..5 the kept ones.
    kept, evidence = (36 * questions["kept_share"]).round(), 6
    common = (questions["recall"] * evidence).round()
    assert questions["precision"].to_numpy() == pytest.approx((common / kept).to_numpy(), abs=1e-4)
    assert questions["iou"].to_numpy() == pytest.approx((common / (kept + evidence - common)).to_numpy(), abs=1e-4)
    assert questions["mean_visual_tokens"].to_numpy() == pytest.approx(((36 + kept) / 2).to_numpy(), abs=1e-3)

    # As many tokens, drawn by lot: where the mask takes everything the answer cannot differ, with a cap none is drawn.
    assert questions["random_correct"].notna().tolist() == [True] * 4 + [False] * 4
    whole = questions[questions["kept_share"] == 1]
    assert (whole["random_correct"] == whole["correct"]).all()

    summary = pd.read_csv(glimpse_masks.RESULT)
    by_lot = summary[summary["type"] == "all"].set_index("cap")["random_accuracy"]
    assert by_lot[1.0] == pytest.approx(questions["random_correct"].mean())
    assert by_lot.isna().tolist() == [False, True]
    assert set(summary["model"]) == set(questions["model"]) == {"tiny"}
    assert summary["type"].tolist() == ["all", "attribute", "counting"] * 2
    assert summary["n"].tolist() == [4, 2, 2] * 2
    everything = summary[summary["type"] == "all"].set_index("cap")
    for cap, rows in questions.groupby("cap"):
        for measure in ("kept_share", "iou", "f1"):
            assert everything.loc[cap, measure] == pytest.approx(rows[measure].mean(), abs=2e-4)
        assert everything.loc[cap, "accuracy"] == pytest.approx(rows["correct"].mean())


@pytest.mark.parametrize(("cap", "bound"), [(1.0, 1.0), (0.25, 1.0), (0.111, 3 / 6), (0.06, 2 / 6)])
def test_no_mask_recalls_more_than_its_cap_lets_in(cap: float, bound: float) -> None:
    answer = {"id": "a", "visual_tokens": 36, "visual_tokens_per_layer": [36] * 6, "kept": []}
    answer |= dict.fromkeys(("type", "answer", "prediction", "correct"))
    answer |= {"evidence": [0, 1, 2, 6, 7, 8], "flops": {"total": 1.0, "full": 2.0}}
    measured = masks.measure(answer, cap)
    assert measured["flops"] == 0.5
    assert measured["recall_bound"] == pytest.approx(bound)


def test_a_lower_threshold_keeps_more(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change("glimpse_masks", "caps", [1.0])
    change("glimpse_masks", "thresholds", [0.05])
    run(monkeypatch)
    by_threshold = pd.read_csv(glimpse_masks.QUESTIONS).pivot(index="id", columns="threshold", values="kept_share")
    assert list(by_threshold.columns) == [0.05, 0.5]
    assert (by_threshold[0.05] > by_threshold[0.5]).all()


def test_examples_are_images_with_a_question_of_each_type() -> None:
    rows = [
        {"id": f"{image}-{place}", "type": kind, "cap": cap, "threshold": 0.5, "kept": [place], "kept_share": 0.1}
        | dict.fromkeys(("answer", "prediction"), "red")
        | {"correct": True, "visual_tokens": 9}
        for cap in (1.0, 0.1)
        for image, kinds in {
            "b": ("reading", "attribute"),
            "a": ("attribute", "counting"),
            "c": ("attribute", "reading"),
        }.items()
        for place, kind in enumerate(kinds)
    ]
    shown = glimpse_masks.examples(pd.DataFrame(rows), images=1)
    assert shown["id"].tolist() == ["b-1", "b-0"], "attribute first; `a` has no reading"
    assert [json.loads(kept) for kept in shown["kept"]] == [[1], [0]]


def test_depths_are_those_of_the_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deeper = tiny_modules(tiny_llava()[0], glimpse_layers=5)
    deeper.config = replace(deeper.config, reduce_layer=4)
    checkpoint.save(deeper, "deeper")
    change("glimpse_depth", "model", "tiny")
    change("glimpse_depth", "paths", ["deeper", "modules"])
    change("glimpse_depth", "caps", [1.0, 0.25])
    change("glimpse_depth", "questions", 4)
    monkeypatch.setattr(sys, "argv", ["glimpse_depth"])
    glimpse_depth.main()
    table = pd.read_csv(glimpse_depth.RESULT)
    everything = table[table["type"] == "all"]
    assert [*zip(everything["reduce_layer"], everything["cap"], strict=True)] == [(2, 1), (2, 0.25), (4, 1), (4, 0.25)]
    assert (everything["n"] == 4).all()
    # Layers 0..K see all 36 tokens; the fewer the layers behind K, the more is computed.
    mean = everything["mean_visual_tokens"].to_numpy()
    kept, full_layers = 36 * everything["kept_share"].to_numpy(), everything["reduce_layer"].to_numpy() + 1
    assert mean == pytest.approx((36 * full_layers + kept * (6 - full_layers)) / 6, abs=0.01)
    capped = everything[everything["cap"] == 0.25].set_index("reduce_layer")["flops"]
    assert capped[2] < capped[4]


def test_without_the_modules_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change("glimpse_masks", "modules", {"tiny": "nowhere"})
    with pytest.raises(SystemExit):
        run(monkeypatch)
    assert "error: nowhere is no GlimpsePrune checkpoint" in capsys.readouterr().err
    assert not Path("results").exists()
