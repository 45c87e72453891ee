"""FLOPs by formula against torch's counter on the same forward, and against the numbers that papers print."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import LlavaConfig

import pruning
from pruning.models import flops
from tests.tiny_models import FAMILIES, tiny_llava, tiny_qwen2_5_vl


def sdpa_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def measured(run: Callable[[], Any]) -> int:
    """What the counter sees; it knows the attention kernels of GPUs, but not the one of CPUs."""
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={kernel: sdpa_flops}) as counter, torch.inference_mode():
        run()
    return counter.get_total_flops()


def counted(model: Any, inputs: dict, per_layer: list[int], visual_tokens: int) -> flops.Flops:
    text_tokens = inputs["input_ids"].shape[1] - visual_tokens
    return flops.count(model.config, per_layer, text_tokens, flops.images_of(model.config, inputs)[0])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
def test_full_model(family: str, attention: str) -> None:
    model, inputs = FAMILIES[family](attention=attention)
    visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    expected = measured(lambda: model(**inputs, logits_to_keep=1))
    assert counted(model, inputs, [visual] * 6, visual).total == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_video(family: str) -> None:
    model, inputs = FAMILIES[family](("v",), attention="eager")
    expected = measured(lambda: model(**inputs, logits_to_keep=1))
    assert counted(model, inputs, [18] * 6, 18).total == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("grid", {"keep": 5}), ("sequential_prune", {"k": 1, "r": 0.75, "step": 25}), ("fastv", {"k": 2, "r": 0.8})],
)
def test_pruned_model(name: str, parameters: dict, family: str, attention: str) -> None:
    model, inputs = FAMILIES[family](attention=attention)
    visual = int((inputs["input_ids"] == model.config.image_token_id).sum())
    with pruning.make(name, **parameters)(model) as record:
        expected = measured(lambda: model(**inputs, logits_to_keep=1))
    per_layer = record.visual_tokens[0]
    assert min(per_layer) < visual / 2
    # What the method spends on choosing is in what the counter saw: at most one row of attention a layer here.
    parts = counted(model, inputs, per_layer, visual)
    chosen = pruning.make(name, **parameters).choosing_flops(
        pruning.models.sizes.Sizes.of(
            model.config,
            visual_tokens=visual,
            text_tokens=inputs["input_ids"].shape[1] - visual,
            vision_tokens=flops.vision_tokens(model.config, flops.images_of(model.config, inputs)[0]),
        )
    )
    assert parts.total + chosen == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_decode_step_with_caches_of_different_lengths(attention: str) -> None:
    model, inputs = tiny_llava(attention=attention)
    length = inputs["input_ids"].shape[1]
    with pruning.make("sequential_prune", k=1, r=0.75, step=25)(model) as record, torch.inference_mode():
        cache = model(**inputs, use_cache=True).past_key_values
        expected = measured(
            lambda: model(
                input_ids=torch.tensor([[7]]),
                attention_mask=torch.ones(1, length + 1, dtype=torch.long),
                position_ids=torch.tensor([[length]]),
                past_key_values=cache,
            )
        )
    per_layer = record.visual_tokens[0]
    assert len(set(per_layer)) == 4
    assert counted(model, inputs, per_layer, 36).per_decoded_token == pytest.approx(expected, rel=0.01)


def test_windows_cut_at_the_edge_and_several_frames() -> None:
    model, _ = tiny_qwen2_5_vl()
    grids = [[2, 6, 10], [1, 4, 14]]  # windows of 4x4 patches: cut in height, in width and over two frames
    patches = sum(t * h * w for t, h, w in grids)
    pixels = torch.randn(patches, 3 * 2 * 4 * 4)
    expected = measured(lambda: model.model.visual(pixels, grid_thw=torch.tensor(grids)))
    parts = flops.count(model.config, [patches // 4] * 6, 3, grids)
    assert parts.vision + parts.projector == expected


def llava_7b() -> LlavaConfig:
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    text = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
    return LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14, **vision},
        text_config={"model_type": "llama", "vocab_size": 32064, **text},
    )


def test_pyramiddrop_prints() -> None:
    pyramid = [576] * 8 + [288] * 8 + [144] * 8 + [72] * 8
    decoder = [flops.count(llava_7b(), n, 60, convention="pyramiddrop").decoder for n in ([576] * 32, pyramid)]
    assert [round(value / 1e12, 2) for value in decoder] == [3.82, 1.78]


@pytest.mark.parametrize(("tokens", "tera"), [(576, 7.63), (192, 2.51), (128, 1.67), (64, 0.83), (32, 0.42)])
def test_vispruner_prints(tokens: int, tera: float) -> None:
    parts = flops.count(llava_7b(), [tokens] * 32, 60, convention="vispruner")
    assert parts.decoder / 1e12 == pytest.approx(tera, abs=0.006)
    assert parts.vision / 1e12 == pytest.approx(0.381, abs=0.0006)


def test_text_counts_in_some_conventions_only() -> None:
    def decoder(convention: str, text_tokens: int) -> int:
        return flops.count(llava_7b(), [128] * 32, text_tokens, convention=convention).decoder

    assert decoder("pyramiddrop", 0) == decoder("pyramiddrop", 60) == decoder("sparsevlm", 0)
    assert decoder("sparsevlm", 60) == flops.count(llava_7b(), [188] * 32, 0, convention="pyramiddrop").decoder
    # DivPrune leaves one of the three matrices of the gated MLP out.
    assert decoder("sparsevlm", 60) - decoder("divprune", 60) == 32 * 188 * 4096 * 11008


def test_exact_is_close_to_the_published_formula_times_two_where_both_count_the_same() -> None:
    """Without text and output head, a Llama decoder without GQA is what the papers' formula describes."""
    exact = flops.count(llava_7b(), [576] * 32, 0, logits=0).decoder
    assert exact == 2 * flops.count(llava_7b(), [576] * 32, 0, convention="pyramiddrop").decoder


def test_bad_input() -> None:
    config = llava_7b()
    with pytest.raises(ValueError, match="32 decoder layers"):
        flops.count(config, [576] * 31, 60)
    with pytest.raises(ValueError, match="unknown convention 'mac'.*pyramiddrop"):
        flops.count(config, [576] * 32, 60, convention="mac")
    with pytest.raises(ValueError, match="numbers of crops"):
        flops.count(config, [576] * 32, 60, [[1, 8, 8]])
    with pytest.raises(ValueError, match="patch grids"):
        flops.count(tiny_qwen2_5_vl()[0].config, [6] * 6, 3, [1])
    with pytest.raises(TypeError, match="Supported: llava"):
        flops.count(config.text_config, [576] * 32, 60)
