"""GlimpsePrune inside models: what stays, and that the rest runs as if the other tokens had never been there."""

from functools import cache

import pytest
import torch
from transformers import Qwen2_5_VLConfig

import pruning
from experiments.gpu.masking import hidden
from pruning.choosing.budget import InfeasibleBudget
from pruning.glimpse.configuration import PUBLISHED_CONFIGS
from pruning.glimpse.method import GlimpsePrune
from pruning.glimpse.modules import GlimpseModules
from pruning.glimpse.training import training_forward
from pruning.models import flops
from pruning.models.sizes import Sizes
from pruning.registry import solve
from tests.pruning.engine import flash_like
from tests.pruning.glimpse.tiny_glimpse import K, tiny_modules
from tests.pruning.models.test_flops import measured
from tests.tiny_models import LAYERS, take_row, tiny_llava, tiny_llava_next, tiny_qwen2_5_vl

flash_like.register()
FAMILIES = {"llava": tiny_llava, "qwen2_5_vl": tiny_qwen2_5_vl}
NEW = {"max_new_tokens": 4, "return_dict_in_generate": True, "output_logits": True, "do_sample": False}


@cache
def build(family, prompts=(1,), attention="sdpa"):
    model, inputs = FAMILIES[family](prompts, attention={"text_config": attention, "vision_config": "sdpa"})
    return model, inputs, tiny_modules(model)


def close(ours, expected, tolerance=2e-5):
    torch.testing.assert_close(ours, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager", flash_like.NAME])
@pytest.mark.parametrize("prompts", [(1,), (1, 0, 2)])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_model_in_which_the_others_are_hidden(family, prompts, attention, beams=1):
    model, inputs, modules = build(family, prompts, attention)
    oracle, _, _ = build(family, prompts, "eager")
    with GlimpsePrune(modules=modules)(model) as record:
        pruned = model.generate(**inputs, **NEW, num_beams=beams)
    assert any(0 < tokens[-1] < tokens[0] for tokens in record.visual_tokens)
    with hidden(oracle, inputs, record, beams, decode_from=LAYERS - 1):
        expected = oracle.generate(**inputs, **NEW, num_beams=beams)
    close(torch.stack(pruned.logits), torch.stack(expected.logits))
    assert pruned.sequences.tolist() == expected.sequences.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_beams(family):
    test_equals_the_model_in_which_the_others_are_hidden(family, (2, 1), "sdpa", beams=3)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_keeps_what_the_predictor_of_the_training_forward_rates_above_one_half(family, prompts=(1, 0, 2)):
    model, inputs, modules = build(family, prompts)
    with GlimpsePrune(modules=modules)(model) as record:
        model(**inputs)
    # An answer of one token behind the prompt, which the glimpse token does not see.
    longer = {name: torch.cat([inputs[name], inputs[name][:, -1:]], 1) for name in ("input_ids", "attention_mask")}
    if "mm_token_type_ids" in inputs:
        longer["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros(3, 1)], 1).int()
    labels = torch.full_like(longer["input_ids"], -100)
    labels[:, -1] = 7
    importance = training_forward(model, modules, {**inputs, **longer}, labels).importance
    per_sample = importance.logits_N.split(importance.tokens_per_sample)
    assert [kept[-1].tolist() for kept in record.kept] == [(own > 0).nonzero()[:, 0].tolist() for own in per_sample]


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_of_two_equals_singles(family):
    prompts = (1, 2)
    model, inputs, modules = build(family, prompts)
    rated = []
    hook = modules.attn_fuser.register_forward_hook(lambda module, args, output: rated.append(output))
    with GlimpsePrune(modules=modules)(model) as record:
        together = model.generate(**inputs, **NEW)
        kept = record.kept
        for row in range(2):
            alone = model.generate(**take_row(inputs, prompts, row), **NEW)
            assert [tokens.tolist() for tokens in record.kept[0]] == [tokens.tolist() for tokens in kept[row]]
            close(torch.stack(together.logits)[:, row], torch.stack(alone.logits)[:, 0], 1e-5)
            assert together.sequences[row, -4:].tolist() == alone.sequences[0, -4:].tolist()
    hook.remove()
    assert kept[0][-1].tolist() != kept[1][-1].tolist()
    torch.testing.assert_close(rated[0], torch.cat(rated[1:]), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_nothing_sees_the_glimpse_token(family):
    model, inputs, modules = build(family, (1, 0, 2))
    expected = model(**inputs)
    with GlimpsePrune(modules=modules, threshold=0.0)(model) as record:
        kept_all = model(**inputs)
    assert all(tokens[0] == tokens[-1] for tokens in record.visual_tokens)
    real = inputs["attention_mask"].bool()
    close(kept_all.logits[real], expected.logits[real], 1e-5)
    with GlimpsePrune(modules=modules, fixed_remain_ratio=1.0)(model):
        assert model(**inputs).logits.equal(expected.logits)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_cache_holds_text_and_kept_tokens_alone(family):
    model, inputs, modules = build(family, (1, 2))
    method = GlimpsePrune(modules=modules, fixed_remain_ratio=0.25)
    with method(model) as record:
        cache = model(**inputs).past_key_values
    longest = max(
        int(mask.sum()) - tokens[0] + tokens[-1]
        for mask, tokens in zip(inputs["attention_mask"], record.visual_tokens, strict=True)
    )
    assert [layer.keys.shape[2] for layer in cache.layers] == [longest] * LAYERS
    for tokens in record.visual_tokens:
        assert tokens == [tokens[0]] * (K + 1) + [int(tokens[0] / 4)] * (LAYERS - K - 1)
        assert method.visual_tokens_per_layer(tokens[0], LAYERS) == tokens


def count_hooks(model):
    return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.modules())


@torch.no_grad()
def test_leaves_the_model_as_it_was():
    model, inputs, modules = build("qwen2_5_vl", (1, 2))
    hooks = count_hooks(model)
    before = model(**inputs).logits
    with GlimpsePrune(modules=modules)(model):
        assert not model(**inputs).logits[:, -1].equal(before[:, -1])
    assert model(**inputs).logits.equal(before)
    assert count_hooks(model) == hooks


@torch.no_grad()
def test_rules_apply_to_a_sample_or_to_every_image():
    model, inputs, modules = build("qwen2_5_vl", (2,))
    per_image = GlimpsePrune(modules=modules, fixed_remain_ratio=0.5, per_image=True)
    with per_image(model) as record:
        model(**inputs)
        kept = record.kept[0][-1]
    assert [(kept < 24).sum(), (kept >= 24).sum()] == [12, 3]
    with GlimpsePrune(modules=modules, fixed_remain_ratio=0.5)(model) as record:
        model(**inputs)
    assert record.visual_tokens[0][-1] == 15
    assert record.kept[0][-1].tolist() != kept.tolist()


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ({}, [1, 2, 5, 6, 8]),
        ({"max_remain_ratio": 0.333}, [1, 5]),
        ({"max_remain_ratio": 0.111}, [5]),
        ({"max_remain_ratio": 0.1}, [5]),
        ({"threshold": 0.9, "min_remain_num": 3}, [1, 5, 6]),
        ({"threshold": 0.999, "min_remain_num": 0}, []),
        ({"fixed_remain_ratio": 0.333}, [1, 5]),
        ({"fixed_remain_ratio": 0.0}, [5]),
    ],
)
def test_rules(rules, kept):
    logits = torch.tensor([-3, 2, 0.1, -0.1, 0, 5, 1, -2, 0.5])
    assert GlimpsePrune(**rules).keep(logits, [9]).nonzero()[:, 0].tolist() == kept


def test_ranks_where_probabilities_are_all_one():
    logits = torch.tensor([20.0, 40.0, 30.0, 40.0])
    assert GlimpsePrune(max_remain_ratio=0.5).keep(logits, [4]).tolist() == [False, True, False, True]


def test_repeat_looks_again_at_every_step():
    model, inputs, modules = build("llava", (1,))
    with GlimpsePrune(modules=modules, mode="repeat")(model) as record:
        generated = model.generate(**inputs, **NEW, use_cache=False)
        kept = record.kept[0][-1].tolist()
    longer = {"input_ids": generated.sequences[:, :-1], "pixel_values": inputs["pixel_values"]}
    with GlimpsePrune(modules=modules)(model) as record, torch.no_grad():
        logits = model(**longer).logits[:, -1]
    assert record.kept[0][-1].tolist() == kept
    close(generated.logits[-1], logits)


def test_without_cache_the_first_choice_stays():
    model, inputs, modules = build("qwen2_5_vl", (1, 2))
    with GlimpsePrune(modules=modules)(model) as record:
        model.generate(**inputs, **NEW)
        kept = [tokens[-1].tolist() for tokens in record.kept]
        model.generate(**inputs, **NEW, use_cache=False)
    assert [tokens[-1].tolist() for tokens in record.kept] == kept


def test_budgets():
    _, _, modules = build("llava", (1,))
    method = solve("glimpse", "75%", num_visual=36, num_layers=LAYERS, modules=modules)
    assert sum(method.visual_tokens_per_layer(36, LAYERS)) / LAYERS == pytest.approx(27, abs=0.5)
    with pytest.raises(InfeasibleBudget, match="floor is 18.5"):
        solve("glimpse", 18, num_visual=36, num_layers=LAYERS, modules=modules)
    with pytest.raises(ValueError, match="there is no formula"):
        GlimpsePrune(modules=modules, max_remain_ratio=0.5).visual_tokens_per_layer(36, LAYERS)


@pytest.mark.parametrize("family", FAMILIES)
def test_flops_equal_the_counter(family):
    model, inputs, modules = build(family, (1,))
    method = GlimpsePrune(modules=modules, fixed_remain_ratio=0.25)
    with method(model) as record:
        counted = measured(lambda: model(**inputs, logits_to_keep=1))
    per_layer = record.visual_tokens[0]
    text = inputs["input_ids"].shape[1] - per_layer[0]
    choosing = method.choosing_flops(Sizes.of(model.config, visual_tokens=per_layer[0], text_tokens=text))
    images = flops.images_of(model.config, inputs)[0]
    expected = flops.count(model.config, per_layer, text, images, choosing=choosing).total
    assert expected == pytest.approx(counted, rel=0.01)
    assert choosing > 0.01 * expected


def test_flops_of_the_published_setting():
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config={"depth": 32, "hidden_size": 1280})
    with torch.device("meta"):
        modules = GlimpseModules(PUBLISHED_CONFIGS["qwen2.5-vl-7b"].config, 3584, 28, 1280)
    method = GlimpsePrune(modules=modules, fixed_remain_ratio=0.111)
    sizes = Sizes.of(config, visual_tokens=4096, text_tokens=60)
    layer = flops.decoder_layer_flops
    base = 28 * layer(config.text_config, 4156, 4156)
    lengths = [visual + 60 for visual in method.visual_tokens_per_layer(4096, 28)]
    pruned = sum(layer(config.text_config, length, length) for length in lengths) + method.choosing_flops(sizes)
    assert base == pytest.approx(61.17e12, rel=1e-3)
    assert pruned / base == pytest.approx(0.72, abs=0.01)


def test_refusals():
    model, inputs, modules = build("llava", (1,))
    encoded = pruning.EncodedImages(model, inputs)  # transformers leaves hooks of its own there
    hooks = count_hooks(model)
    with pytest.raises(ValueError, match="give path="), pruning.make("glimpse")(model):
        pass
    with pytest.raises(ValueError, match="not both"):
        GlimpsePrune(max_remain_ratio=0.1, fixed_remain_ratio=0.1)
    with pytest.raises(ValueError, match="fixed_remain_ratio"):
        GlimpsePrune(fixed_remain_ratio=1.5)
    with pytest.raises(ValueError, match="not encoded images"), GlimpsePrune(modules=modules)(model, encoded):
        pass
    with pytest.raises(ValueError, match="cannot follow a method before"):
        both = pruning.make("sequence", methods=[pruning.make("random", keep=9), GlimpsePrune(modules=modules)])
        with both(model):
            model(**inputs)
    other, _ = tiny_llava_next()
    with pytest.raises(TypeError, match="made for Qwen"), GlimpsePrune(modules=modules)(other):
        pass
    wider = GlimpseModules(modules.config, 64, 4, 16)
    with pytest.raises(ValueError, match="trained with this model"), GlimpsePrune(modules=wider)(model):
        pass
    assert count_hooks(model) == hooks
