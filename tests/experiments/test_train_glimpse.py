"""Training GlimpsePrune's modules on tiny models: what changes, what is logged, and that it can be cut off."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from experiments import train_glimpse
from experiments.parameters.load import load_parameters
from experiments.parameters.training import TrainGlimpse
from pruning.glimpse.method import GlimpsePrune
from pruning.glimpse.modules import GlimpseModules
from tests.experiments import workspace
from tests.tiny_models import tiny_llava, tiny_qwen2_5_vl
from tests.tiny_processors import save_tiny

STEPS, BATCH = 6, 2
LOG, WEIGHTS = Path("results/training_glimpse_tiny.csv"), Path("data/models/glimpse-tiny/glimpse_modules.safetensors")
LATE = 3  # a question of the third batch
CONFIG = {"reduce_layer": 2, "attn_fuse_size": 16, "visual_cond_size": 16, "attn_fuse_num_heads": 2}
LLAVA = CONFIG | {"glimpse_layers": 6, "selected_visual_layers": [2, 1], "use_attention_logits": False}
QWEN = CONFIG | {"glimpse_layers": 3, "selected_visual_layers": [2, 0], "use_attention_logits": True}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace's tiny model, and twelve questions in Visual-CoT's format."""
    workspace.make(tmp_path, questions=1)
    rng, lines = np.random.default_rng(0), []
    (tmp_path / "images").mkdir()
    for number in range(STEPS * BATCH):
        pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{number}.png")
        question = {"question": "what colour is the circle ?", "answer": ("red", "blue")[number % 2]}
        lines.append(question | {"image": f"{number}.png", "bboxs": [[0, 0, 12, 8 + number]]})
    (tmp_path / "gqa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.chdir(tmp_path)
    change({"config": LLAVA})
    return tmp_path


def change(values: dict[str, object]) -> TrainGlimpse:
    """A few steps of training, with these parameters besides."""
    parameters = yaml.safe_load(Path("params.yaml").read_text())
    short = {"data": "gqa.jsonl", "images": "images", "questions": 0, "batch_size": BATCH, "learning_rate": 0.01}
    short |= {"token_scale": 1.0, "log_every": 2, "save_every": 2, "workers": 0}
    committed = yaml.safe_load(workspace.COMMITTED.read_text())["train_glimpse"]["scenes-llava"]
    settings = committed | short | values
    parameters["train_glimpse"] = {"tiny": settings}
    workspace.write_parameters(Path(), parameters)
    return load_parameters().train_glimpse["tiny"]


def run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train_glimpse", "tiny"])
    train_glimpse.main()


@pytest.mark.parametrize(("tiny", "config"), [(tiny_llava, LLAVA), (tiny_qwen2_5_vl, QWEN)])
def test_the_modules_alone_change_and_the_written_folder_prunes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tiny, config: dict[str, object]
) -> None:
    model, inputs = tiny()
    save_tiny(model, folder / "tiny")
    settings = change({"config": config})
    before = {path.name: path.read_bytes() for path in (folder / "tiny").iterdir()}
    run(monkeypatch)
    assert {path.name: path.read_bytes() for path in (folder / "tiny").iterdir()} == before

    log = pd.read_csv(LOG)
    assert log["step"].tolist() == [2, 4, 6] and log["epoch"].iloc[-1] == 1
    parts = log["cross_entropy"] + log["dice"] + 0.1 * log["bce"]
    np.testing.assert_allclose(log["loss"], parts, atol=1e-4)
    assert (log[["cross_entropy", "dice", "bce", "grad_norm"]] > 0).all(axis=None)

    torch.manual_seed(settings.seed)
    fresh = GlimpseModules.for_model(model, train_glimpse.configuration("tiny", settings)).state_dict()
    written = load_file(WEIGHTS)
    assert not [name for name, tensor in fresh.items() if torch.equal(tensor, written[name])], "all of them learn"
    rows_L = (fresh["learnable_embeddings"] != written["learnable_embeddings"]).flatten(1).any(dim=1)
    assert rows_L.all() and len(rows_L) == config["glimpse_layers"], "the token learns in every layer that has one"

    with GlimpsePrune.from_pretrained(WEIGHTS.parent, fixed_remain_ratio=0.25)(model) as record:
        model(**inputs)
    total = int((inputs["input_ids"] == model.config.image_token_id).sum())
    assert record.visual_tokens == [[total] * 3 + [total // 4] * 3]


def test_cut_off_and_run_again_is_as_uninterrupted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    log, written = LOG.read_bytes(), WEIGHTS.read_bytes()
    shutil.rmtree(train_glimpse.CHECKPOINTS)

    # A picture that is missing stops the training when its turn comes: in the third step.
    late = folder / f"images/{LATE}.png"
    late.rename(folder / "away.png")
    with pytest.raises(SystemExit):
        run(monkeypatch)
    assert [path.name for path in train_glimpse.CHECKPOINTS.glob("*/checkpoint-*")] == ["checkpoint-2"]
    assert LOG.read_bytes() == log, "nothing half-written"
    (folder / "away.png").rename(late)

    LOG.unlink()
    run(monkeypatch)
    assert LOG.read_bytes() == log
    assert WEIGHTS.read_bytes() == written


def test_other_parameters_start_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(monkeypatch)
    first = pd.read_csv(LOG)
    change({"config": LLAVA, "learning_rate": 0.02})
    run(monkeypatch)
    np.testing.assert_allclose(pd.read_csv(LOG)["learning_rate"], 2 * first["learning_rate"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"config": {}}, "config is empty, and there is no published one for tiny: qwen2.5-vl-3b"),
        ({"config": LLAVA | {"reduce_layer": 9, "glimpse_layers": 12}}, "of 6 layers: they can be"),
        (
            {"config": LLAVA | {"fuse_size": 3}},
            "train_glimpse.config of tiny: got an unexpected keyword argument 'fuse_size'",
        ),
        ({"config": {"reduce_layer": 2}}, "train_glimpse.config of tiny: missing 2 required"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"questions": 13}, "13 questions asked for, but there are 12"),
    ],
)
def test_a_mistake_is_one_clear_error(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    values: dict[str, object],
    message: str,
) -> None:
    change({"config": LLAVA} | values)
    with pytest.raises(SystemExit):
        run(monkeypatch)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert not LOG.exists() and not WEIGHTS.parent.exists()
