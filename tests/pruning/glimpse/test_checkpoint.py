"""Checkpoints of GlimpsePrune: our layout, the authors', and what is wrong with others."""

import json

import pytest
import torch
from safetensors.torch import load_file

import pruning
from pruning.glimpse import checkpoint
from pruning.glimpse.method import GlimpsePrune
from tests.pruning.glimpse.tiny_glimpse import tiny_modules
from tests.tiny_models import LAYERS, tiny_llava, tiny_qwen2_5_vl

MODULES = ("attn_fuser", "le_proj", "le_norm")


def authors_layout(modules, folder, dtype=torch.float32):
    nested = {name: getattr(modules, name).to(dtype).state_dict() for name in MODULES}
    nested["learnable_embeddings"] = modules.learnable_embeddings.data.to(dtype)
    torch.save(nested, folder / "new_modules_gp.pt")
    config = modules.config.to_json() | {"model_type": "qwen2_5_vl_gp", "reduce_threshold": 0.5}
    (folder / "config.json").write_text(json.dumps(config))


def test_round_trip(tmp_path):
    model, _ = tiny_qwen2_5_vl()
    modules = tiny_modules(model, glimpse_layers=LAYERS)
    checkpoint.save(modules, tmp_path / "new" / "folder")
    loaded = checkpoint.load(tmp_path / "new" / "folder")
    assert loaded.config == modules.config
    assert not loaded.training
    state = loaded.state_dict()
    assert all(value.equal(state[name]) for name, value in modules.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "config.json",
        "glimpse_modules.safetensors",
    ]
    assert "attn_fuser.cond_in_projs.0.weight" in load_file(tmp_path / "new" / "folder" / checkpoint.WEIGHTS)


@torch.no_grad()
def test_authors_layout_prunes_the_same(tmp_path):
    model, inputs = tiny_llava((1,))
    modules = tiny_modules(model)
    with GlimpsePrune(modules=modules)(model) as record:
        model(**inputs)
        kept = record.kept[0][-1].tolist()
    authors_layout(modules, tmp_path)
    for method in (GlimpsePrune.from_pretrained(tmp_path), pruning.make("glimpse", path=str(tmp_path))):
        with method(model) as record:
            model(**inputs)
        assert record.kept[0][-1].tolist() == kept


def test_half_precision_is_read_as_float32(tmp_path):
    model, _ = tiny_llava()
    authors_layout(tiny_modules(model), tmp_path, torch.bfloat16)
    assert {parameter.dtype for parameter in checkpoint.load(tmp_path).parameters()} == {torch.float32}


class Command:
    def __reduce__(self):
        return print, ("this must not run",)


def test_code_in_a_checkpoint_does_not_run(tmp_path, capsys):
    model, _ = tiny_llava()
    authors_layout(tiny_modules(model), tmp_path)
    torch.save({"attn_fuser": Command()}, tmp_path / "new_modules_gp.pt")
    with pytest.raises(ValueError, match=r"new_modules_gp\.pt"):
        checkpoint.load(tmp_path)
    assert capsys.readouterr().out == ""


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        GlimpsePrune.from_pretrained(tmp_path)
    model, _ = tiny_llava()
    checkpoint.save(tiny_modules(model), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"le_layers": [0, 1, 2, 3]}))
    with pytest.raises(ValueError, match="does not fit its configuration"):
        checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match="lacks reduce_layer"):
        checkpoint.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json"):
        checkpoint.load(tmp_path)
