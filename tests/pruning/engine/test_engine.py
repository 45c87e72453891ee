"""What a user of the context manager relies on."""

from dataclasses import dataclass

import pytest
import torch

import pruning
from experiments.gpu.masking import hidden
from pruning.choosing.base import InsideLLM
from pruning.engine.tokens import Choice
from tests.pruning.engine.fingerprint import fingerprint
from tests.tiny_models import FAMILIES, LAYERS, take_row, tiny_llava

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
