"""Pruning equals the unpruned model in which the same tokens are hidden: logits, greedy tokens, samples and beams."""

from functools import cache

import pytest
import torch

import pruning
from experiments.gpu.masking import hidden, visible
from pruning.methods.fastv import FastV
from pruning.models.families import family_of
from tests.pruning.engine import flash_like
from tests.tiny_models import FAMILIES, IMAGE, VIDEO

flash_like.register()
ATTENTION = ["sdpa", "eager", flash_like.NAME]
NEW = {"max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True}


METHODS = {
    "before, re-packed": pruning.make("vispruner", keep=5),
    "before, original": pruning.make("random", keep=5, positions="original"),
    "inside, once": pruning.make("fastv", k=2, r=0.6),
    "inside, every layer": pruning.make("sequential_prune", k=1, r=0.8, step=20),
}


@cache
def build(family: str, prompts: tuple[int, ...], attention: str):
    return FAMILIES[family](prompts, attention={"text_config": attention, "vision_config": "sdpa"})


def compare(family: str, method, prompts: tuple[int, ...], attention: str, beams: int = 1, **options):
    """Generate with the method, then with the oracle; both must give the same."""
    model, inputs = build(family, prompts, attention)
    oracle, _ = build(family, prompts, "eager")
    torch.manual_seed(3)
    with method(model) as record:
        pruned = model.generate(**inputs, **NEW, num_beams=beams, **options)
    visual = torch.isin(inputs["input_ids"], torch.tensor([IMAGE, VIDEO])).sum(dim=1).tolist()
    assert all(tokens[-1] < before or before == 0 for tokens, before in zip(record.visual_tokens, visual, strict=True))
    if any(part is not None and part.repacks(family_of(model)) for part in method.parts()):
        positions = visible(oracle, inputs, record, 0).cumsum(dim=1) - 1
        inputs = {**inputs, "position_ids": positions.clamp(min=0)}
    torch.manual_seed(3)
    with hidden(oracle, inputs, record, beams):
        expected = oracle.generate(**inputs, **NEW, num_beams=beams, **options)
    torch.testing.assert_close(torch.stack(pruned.logits), torch.stack(expected.logits), atol=2e-5, rtol=0)
    assert pruned.sequences.tolist() == expected.sequences.tolist()


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_batch_with_one_no_and_two_images(family, name, attention):
    compare(family, METHODS[name], (1, 0, 2), attention, do_sample=False)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_greedy_single_prompt(family, name, attention):
    compare(family, METHODS[name], (1,), attention, do_sample=False)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_beams(family, name):
    compare(family, METHODS[name], (2, 1), "sdpa", beams=3, do_sample=False)


@pytest.mark.parametrize("name", METHODS)
def test_sampling(name):
    compare("llava", METHODS[name], (1, 2), "sdpa", do_sample=True)


class Wavering(FastV):
    """FastV with scores that differ between rows, as rounding on a GPU can make them."""

    def score(self, seen):
        rows, length = seen.hidden_BSD.shape[:2]
        return super().score(seen) + torch.randn(rows, length, generator=torch.Generator().manual_seed(0))


def test_beams_of_a_sample_keep_the_same_tokens():
    compare("llava", Wavering(k=2, r=0.6), (2, 1), "sdpa", beams=3, do_sample=False)


@pytest.mark.parametrize("prompts", [(1,), (1, 2)])
@pytest.mark.parametrize("name", METHODS)
def test_without_cache_decodes_as_with_it(name, prompts):
    model, inputs = build("llava", prompts, "sdpa")
    with METHODS[name](model):
        cached = model.generate(**inputs, **NEW, do_sample=False)
        uncached = model.generate(**inputs, **NEW, do_sample=False, use_cache=False)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), atol=2e-5, rtol=0)
    assert cached.sequences.tolist() == uncached.sequences.tolist()


MERGING = {"pool": {"keep": 6}, "prumerge": {"keep": 6, "neighbours": 3}, "tome": {"keep": 12}}


@pytest.mark.parametrize("name", ["random", "grid", "vispruner", "fastervlm", "divprune", "cdpruner", *MERGING])
def test_every_method_before_the_decoder_takes_both_positions(name):
    """Re-packed the text begins behind what stays, in its own place it begins where it did."""
    model, inputs = build("llava", (1,), "sdpa")
    starts = {}
    for positions in (None, "repacked", "original"):
        method = pruning.make(name, **MERGING.get(name, {"keep": 6}), positions=positions)
        seen = []
        handle = model.model.language_model.layers[0].register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(kwargs["position_embeddings"][0]), with_kwargs=True
        )
        try:
            with method(model), torch.no_grad():
                model(**inputs)
        finally:
            handle.remove()
        starts[positions] = seen[0][0, -1]
    last = torch.tensor([[inputs["input_ids"].shape[1] - 1]])
    text = model.model.language_model.rotary_emb(seen[0], last)[0][0, 0]
    assert torch.equal(starts[None], starts["repacked"])
    torch.testing.assert_close(starts["original"], text)
    assert not torch.allclose(starts["repacked"], text)


@pytest.mark.parametrize(
    ("family", "name", "positions", "refusal"),
    [
        ("qwen2_5_vl", "random", "repacked", "mRoPE keep the original positions"),
        ("llava", "visionzip", "original", r"\[CLS\], which has no place"),
    ],
)
def test_positions_that_cannot_be_are_refused(family, name, positions, refusal):
    model, inputs = build(family, (1,), "sdpa")
    method = pruning.make(name, keep=12, positions=positions)
    with pytest.raises(ValueError, match=refusal), torch.no_grad(), method(model):
        model(**inputs)
    with pytest.raises(ValueError, match="positions must be one of original, repacked"):
        pruning.make(name, keep=12, positions="own")
