"""The one clear error for everything that cannot work."""

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, StaticCache

import pruning
from tests.pruning.engine.fingerprint import fingerprint
from tests.tiny_models import IMAGE, LAYERS, tiny_llava

PRUNING = {"random": {"keep": 5}, "fastv": {"k": 2, "r": 0.6}}
BAD_PARAMETERS = [
    ("nothing", {}, "unknown method 'nothing'.*vispruner"),
    ("vispruner", {"keeps": 4}, "no parameter 'keeps'.*keep, important_ratio"),
    ("full", {"keep": 4}, "no parameter 'keep'.*none"),
    *[("random", {"keep": keep}, "keep must be") for keep in (0, -1, float("nan"), 2.5, "64", None, True)],
    ("random", {"keep": 1, "seed": -1}, "seed must be"),
    ("vispruner", {"keep": 4, "important_ratio": 1.5}, "important_ratio must be"),
    ("fastv", {"k": 0}, "k must be"),
    ("fastv", {"r": float("nan")}, "r must be"),
    ("fastv", {"r": "0.5"}, "r must be"),
    ("fastv", {"rounding": "up"}, "rounding must be one of round, int"),
    ("fastv", {"mode": "never"}, "mode must be one of static, repeat"),
    ("sequential_prune", {"step": 0}, "step must be"),
    ("sequential_prune", {"r": 0.05, "step": 10}, "below one step"),
    ("oracle", {"boxes": [[[0, 0, 1]]]}, "boxes must hold"),
    ("oracle", {"boxes": [[[0, 0, 1, 2]]]}, "boxes must be"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), BAD_PARAMETERS)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        pruning.make(name, **parameters)


def static_cache(model, inputs):
    return {**inputs, "past_key_values": StaticCache(model.config, max_cache_len=80)}


def wrong_mask(model, inputs):
    length = inputs["input_ids"].shape[1]
    return {**inputs, "attention_mask": torch.ones(1, 1, length, length)}


BAD_CALLS = {
    "labels": (lambda model, inputs: {**inputs, "labels": inputs["input_ids"]}, "labels cannot be used"),
    "static cache": (static_cache, "dynamic KV cache, not StaticCache"),
    "mask": (wrong_mask, "2-D attention_mask"),
    "no image": (lambda model, inputs: {"input_ids": inputs["input_ids"]}, "36 image placeholders but no image"),
    "image missing": (
        lambda model, inputs: {**inputs, "input_ids": inputs["input_ids"].repeat(1, 2), "attention_mask": None},
        "match",
    ),
}


@pytest.mark.parametrize("name", ["random", "fastv"])
@pytest.mark.parametrize("case", BAD_CALLS)
def test_calls_that_cannot_work(case, name):
    change, message = BAD_CALLS[case]
    model, inputs = tiny_llava((1,))
    model(**inputs)
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message), pruning.make(name, **PRUNING[name])(model):
        model(**change(model, inputs))
    assert fingerprint(model) == before


def test_placeholders_in_the_wrong_prompt():
    model, inputs = tiny_llava((1, 1))
    visual = inputs["input_ids"] == IMAGE
    inputs["input_ids"][0][visual[0].nonzero()[0]] = 5
    inputs["input_ids"][1][(~visual[1]).nonzero()[-1]] = IMAGE
    with pytest.raises(ValueError, match="35 image placeholders in row 0"), pruning.make("random", keep=5)(model):
        model(**inputs)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("random", {"keep": 37}, "keep=37 is above the 36 visual tokens"),
        ("fastv", {"k": LAYERS}, "lower k"),
        ("sequential_prune", {"k": 2, "r": 0.9}, "do not fit 6 layers"),
        ("oracle", {"keep": 5, "boxes": []}, "a list for every sample"),
    ],
)
def test_parameters_that_do_not_fit_the_model(name, parameters, message):
    model, inputs = tiny_llava((1,))
    with pytest.raises(ValueError, match=message), pruning.make(name, **parameters)(model):
        model(**inputs)


def test_two_methods_at_once():
    model, inputs = tiny_llava((1,))
    with pruning.make("fastv")(model):
        with pytest.raises(RuntimeError, match="already active"), pruning.make("random", keep=5)(model):
            pass
        model.generate(**inputs, max_new_tokens=3, do_sample=False)


def test_continuing_a_pruned_cache_by_several_tokens():
    model, inputs = tiny_llava((1,))
    with pruning.make("fastv")(model), torch.no_grad():
        cache = model(**inputs).past_key_values
        with pytest.raises(ValueError, match="one token at a time"):
            model(input_ids=torch.tensor([[4, 5]]), past_key_values=cache)


def test_repeat_with_a_cache():
    model, inputs = tiny_llava((1,))
    method = pruning.make("fastv", mode="repeat")
    with pytest.raises(ValueError, match="use_cache=False"), method(model):
        model.generate(**inputs, max_new_tokens=3, do_sample=False)


def test_unsupported_model():
    model = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    with pytest.raises(TypeError, match=r"CLIPModel is not supported.*LlavaForConditionalGeneration"):
        pruning.make("full")(model).__enter__()
