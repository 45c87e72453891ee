"""What a user of the context manager relies on, and the one error for everything that cannot work."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from transformers import CLIPConfig, CLIPModel, StaticCache

import pruning
from pruning.base import InsideLLM
from pruning.tokens import Choice
from tests.pruning.masking import hidden
from tests.tiny_models import FAMILIES, IMAGE, LAYERS, VIDEO, take_row, tiny_llava, tiny_qwen2_vl

GREEDY = {"max_new_tokens": 3, "do_sample": False}
PRUNING = {
    "random": {"keep": 5},
    "grid": {"keep": 5},
    "oracle": {"keep": 5, "boxes": [[[0.1, 0.1, 0.3, 0.5]], [], [[0, 0, 1, 1]]]},
    "vispruner": {"keep": 5},
    "fastv": {"k": 2, "r": 0.6},
    "sequential_prune": {"k": 1, "r": 0.8, "step": 20},
}
KEEPING_ALL = {
    "full": {},
    "random": {"keep": 36},
    "grid": {"keep": 36},
    "oracle": {"keep": 36, "boxes": [[], [], []]},
    "vispruner": {"keep": 36},
    "fastv": {"k": 2, "r": 0},
}


def fingerprint(model: nn.Module) -> list:
    """Attributes and hooks of every module. Take it after a first call, at which transformers adds hooks of its own."""
    return [
        (name, sorted(module.__dict__), [list(hooks) for hooks in module.__dict__.values() if isinstance(hooks, dict)])
        for name, module in model.named_modules()
    ]


def generate(model, inputs, **options):
    return model.generate(**inputs, **{**GREEDY, **options})


@pytest.mark.parametrize("name", KEEPING_ALL)
@torch.no_grad()
def test_keeping_all_is_the_unmodified_model_bit_for_bit(name):
    model, inputs = tiny_llava((1, 0, 2))
    logits, tokens, before = model(**inputs).logits, generate(model, inputs), fingerprint(model)
    with pruning.make(name, **KEEPING_ALL[name])(model):
        assert torch.equal(model(**inputs).logits, logits)
        assert torch.equal(generate(model, inputs), tokens)
    assert fingerprint(model) == before
    assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["vispruner", "sequential_prune"])
@torch.no_grad()
def test_model_is_left_as_it_was(family, name):
    model, inputs = FAMILIES[family]((1, 2))
    logits, before = model(**inputs).logits, fingerprint(model)
    with pruning.make(name, **PRUNING[name])(model):
        generate(model, inputs)
    assert fingerprint(model) == before
    with pytest.raises(KeyError), pruning.make(name, **PRUNING[name])(model):
        model(**inputs)
        raise KeyError
    assert fingerprint(model) == before
    assert torch.equal(model(**inputs).logits, logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PRUNING)
def test_batch_equals_singles(family, name):
    prompts = (1, 0, 2)
    model, inputs = FAMILIES[family](prompts)
    parameters = PRUNING[name]
    with pruning.make(name, **parameters)(model) as record:
        together = generate(model, inputs)
    counts, kept = record.visual_tokens, record.kept
    for row in range(len(prompts)):
        alone = {**parameters, "boxes": parameters["boxes"][row : row + 1]} if name == "oracle" else parameters
        with pruning.make(name, **alone)(model) as record:
            single = generate(model, take_row(inputs, prompts, row))
        assert together[row, -3:].tolist() == single[0, -3:].tolist()
        assert counts[row] == record.visual_tokens[0]
        assert [numbers.tolist() for numbers in kept[row]] == [numbers.tolist() for numbers in record.kept[0]]


@pytest.mark.parametrize("name", PRUNING)
def test_counts_are_those_of_the_formula(name):
    model, inputs = tiny_llava((1,))
    method = pruning.make(name, **PRUNING[name])
    with method(model) as record:
        assert record.visual_tokens == [] and record.kept == []
        logits = model(**inputs).logits
    assert record.visual_tokens == [method.visual_tokens_per_layer(36, LAYERS)]
    assert [len(numbers) for numbers in record.kept[0]] == record.visual_tokens[0]
    assert all(numbers.tolist() == sorted(numbers.tolist()) for numbers in record.kept[0])
    text = inputs["input_ids"].shape[1] - 36
    assert logits.shape[1] == text + record.visual_tokens[0][-1]
    assert record.seconds > 0


def test_several_prompts_in_one_context():
    model, inputs = tiny_llava((1, 2))
    other = take_row(inputs, (1, 2), 1)
    _, no_image = tiny_llava((0,))
    with pruning.make("fastv", k=2, r=0.5)(model) as record:
        first = generate(model, inputs)
        generate(model, other)
        assert record.visual_tokens == [[72, 72, 36, 36, 36, 36]]
        text = generate(model, no_image)
        assert record.visual_tokens == [[0] * LAYERS]
        again = generate(model, inputs)
        assert record.visual_tokens == [[36, 36, 18, 18, 18, 18], [72, 72, 36, 36, 36, 36]]
    assert torch.equal(first, again)
    assert torch.equal(text, generate(model, no_image))


def test_decoding_by_hand_keeps_the_original_positions():
    model, inputs = tiny_llava((1,))
    inputs = {name: inputs[name] for name in ("input_ids", "pixel_values")}
    with pruning.make("fastv", k=2, r=0.5)(model), torch.no_grad():
        tokens = generate(model, inputs)[0, -3:]
        output = model(**inputs)
        for token in tokens:
            assert output.logits[0, -1].argmax() == token
            output = model(input_ids=token[None, None], past_key_values=output.past_key_values)


@torch.no_grad()
def test_repeat_prunes_anew_with_the_newest_token():
    model, inputs = tiny_llava((1,))
    method = pruning.make("sequential_prune", k=1, r=0.8, step=20, mode="repeat")
    with method(model) as record:
        tokens = generate(model, inputs, use_cache=False)
        last = record.kept[0][-1]
    length = inputs["input_ids"].shape[1]
    extended = {**inputs, "input_ids": tokens[:, :-1], "attention_mask": torch.ones_like(tokens[:, :-1])}
    with method(model) as record:
        for step in range(3):
            now = {**extended, "input_ids": tokens[:, : length + step], "attention_mask": None}
            assert model(**now).logits[0, -1].argmax() == tokens[0, length + step]
        assert record.kept[0][-1].tolist() == last.tolist()


@dataclass
class DropEverywhere(InsideLLM):
    """Runs to layer 2, then keeps the visual tokens above the mean of a channel, in the caches of layers 0 to 2 too."""

    name = "drop_everywhere"
    prune_earlier_caches = True

    def stages(self, num_visual, num_layers):
        return {3: None}

    def choose(self, seen, counts):
        values, visual = seen.hidden_BSD[..., 0], seen.visual_BS
        mean = (values * visual).sum(dim=1, keepdim=True) / visual.sum(dim=1, keepdim=True)
        return Choice((values > mean) | ~visual)

    def choosing_flops(self, sizes):
        return 0


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_from_the_caches_of_earlier_layers(family, beams):
    prompts = (1, 0, 2)
    model, inputs = FAMILIES[family](prompts)
    oracle, _ = FAMILIES[family](prompts, attention="eager")
    options = {"return_dict_in_generate": True, "output_logits": True, "num_beams": beams}
    with DropEverywhere()(model) as record:
        pruned = generate(model, inputs, **options)
    first, last = record.visual_tokens[2][0], record.visual_tokens[2][-1]
    assert 0 < last < first and last != record.visual_tokens[0][-1]
    lengths = [layer.keys.shape[2] for layer in pruned.past_key_values.layers]
    assert len(set(lengths)) == 1 and lengths[0] < inputs["input_ids"].shape[1]
    with hidden(oracle, inputs, record, beams, decode_from=LAYERS - 1):
        expected = generate(oracle, inputs, **options)
    torch.testing.assert_close(torch.stack(pruned.logits), torch.stack(expected.logits), atol=5e-5, rtol=0)
    assert pruned.sequences.tolist() == expected.sequences.tolist()


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
        generate(model, inputs)


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
        generate(model, inputs)


def test_video():
    model, inputs = tiny_qwen2_vl((1,))
    inputs["input_ids"][0, -1] = VIDEO
    inputs["mm_token_type_ids"] = None
    with pytest.raises(ValueError, match="video"), pruning.make("fastv")(model):
        model(**{**inputs, "image_grid_thw": inputs["image_grid_thw"], "position_ids": torch.zeros(3, 1, 31).long()})


def test_unsupported_model():
    model = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    with pytest.raises(TypeError, match=r"CLIPModel is not supported.*LlavaForConditionalGeneration"):
        pruning.make("full")(model).__enter__()
