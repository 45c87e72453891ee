"""Loading a model: every family from a folder, presets by name, and one clear error for what cannot be loaded."""

import shutil
import warnings

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Blip2Config, LlamaConfig

from experiments.asking.inputs import build_inputs
from experiments.asking.models import load
from experiments.named.presets import PRESETS, ModelError, Preset, find
from tests.tiny_models import FAMILIES, IMAGE, tiny_llava
from tests.tiny_processors import save_tiny


@pytest.fixture(scope="module")
def saved_llava(tmp_path_factory):
    torch.manual_seed(0)
    return save_tiny(tiny_llava()[0], tmp_path_factory.mktemp("llava"))


@pytest.fixture
def folder(saved_llava, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved_llava, tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_from_a_folder_and_answers(family, tmp_path):
    original = FAMILIES[family]()[0]
    model, processor = load(str(save_tiny(original, tmp_path)), device="cpu")
    assert type(model) is type(original)
    assert not model.training and model.dtype == torch.float32 and model.device.type == "cpu"
    assert model.config._attn_implementation == "sdpa"
    saved = original.state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())

    images = [Image.new("RGB", (40, 24), "red"), []]
    inputs = build_inputs(processor, images, ["what colour is the circle ?", "yes"])
    assert (inputs["input_ids"][0] == IMAGE).sum() > 0
    new = model.generate(**inputs, max_new_tokens=3, do_sample=False)[:, inputs["input_ids"].shape[1] :]
    assert new.shape == (2, 3)
    assert all(processor.batch_decode(new))


def test_loading_leaves_no_hook_on_the_model(saved_llava):
    model, _ = load(str(saved_llava), device="cpu")
    for name, module in model.named_modules():
        assert not module._forward_hooks and not module._forward_pre_hooks, name
        assert "forward" not in vars(module), name


def test_presets_name_precisions_that_torch_has():
    assert PRESETS["llava-1.5-7b"].dtype == "float16"
    for preset in PRESETS.values():
        assert isinstance(getattr(torch, preset.dtype), torch.dtype)


def test_a_preset_wins_over_a_folder_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llava-1.5-7b").mkdir()
    assert find("llava-1.5-7b").source == "llava-hf/llava-1.5-7b-hf"


@pytest.mark.parametrize(("name", "hint"), [("llava-1.5-7", "llava-1.5-7b"), ("Qwen2.5-VL-3B", "qwen2.5-vl-3b")])
def test_unknown_name_lists_the_presets_and_suggests_the_nearest(name, hint):
    with pytest.raises(ModelError, match=f"neither a preset nor a folder. Did you mean '{hint}'") as caught:
        load(name)
    assert all(preset in str(caught.value) for preset in PRESETS)


def test_empty_name_is_not_the_current_folder():
    with pytest.raises(ModelError, match="neither a preset nor a folder"):
        load("")


def test_weights_that_are_not_safetensors_are_refused(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \.safetensors weights in .*pytorch_model\.bin can run code"):
        load(str(folder))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", r"no \.safetensors weights in .*it holds no weights"),
        ("config.json", r"no config\.json"),
        ("processor_config.json", r"no processor in"),
    ],
)
def test_missing_file(folder, missing, message):
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=message):
        load(str(folder))


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cannot be loaded: .*Save or download"):
        load(str(folder))


def test_incomplete_weights_are_not_filled_with_random_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    dropped = next(name for name in weights if "q_proj" in name)
    save_file({k: v for k, v in weights.items() if k != dropped}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are missing"):
        load(str(folder))


@pytest.mark.parametrize("config", [LlamaConfig(), Blip2Config()])
def test_unsupported_family_names_the_supported_ones(folder, config):
    config.save_pretrained(folder)
    with pytest.raises(
        ModelError, match=f"type '{config.model_type}' are not supported. Supported: LlavaForCond.*Qwen2_5"
    ):
        load(str(folder))


def test_damaged_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded: .*not a valid JSON"):
        load(str(folder))


def test_hub_out_of_reach(monkeypatch, tmp_path):
    """HF_HUB_OFFLINE is read when huggingface_hub is imported, so an empty cache stands for no network at all."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ModelError, match=r"llava-hf/llava-1\.5-7b-hf could not be fetched.*HF_HUB_OFFLINE.*hf download"
    ):
        load("llava-1.5-7b")


def test_missing_embedded_model_says_how_to_restore_it(monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "scenes-llava", Preset(str(tmp_path / "scenes-llava")))
    with pytest.raises(ModelError, match="scenes-llava is missing. If it is part of the repository: git checkout --"):
        load("scenes-llava")


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_device_that_is_not_there(saved_llava, device):
    with pytest.raises(ModelError, match=f"device '{device}' cannot be used here"):
        load(str(saved_llava), device=device)


def test_flash_attention_falls_back_to_sdpa_with_one_warning(saved_llava):
    with pytest.warns(UserWarning, match="flash_attention_2 was asked for, but .*: using sdpa") as caught:
        model, _ = load(str(saved_llava), device="cpu", attention="flash_attention_2")
    assert len(caught) == 1
    assert model.config._attn_implementation == "sdpa"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(str(saved_llava), attention="eager", device="cpu")[0].config._attn_implementation == "eager"
