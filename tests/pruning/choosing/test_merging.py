"""Methods that return tokens instead of indices only, before the language model and inside it."""

from dataclasses import dataclass

import pytest
import torch

from pruning.choosing.base import InsideLLM, KeepPerImage
from pruning.engine.contract import MergedTokens
from pruning.engine.tokens import Choice
from tests.tiny_models import IMAGE, LAYERS, tiny_llava, tiny_qwen2_vl


@dataclass
class KeepAndMean(KeepPerImage):
    """The first keep - 1 tokens of every image, and the mean of all others behind them."""

    name = "keep_and_mean"

    def select(self, seen):
        first, rest = seen.projected_BND[:, : self.keep - 1], seen.projected_BND[:, self.keep - 1 :]
        slots = torch.arange(self.keep).expand(seen.num_images, -1)
        numbers = slots.clone()
        numbers[:, -1] = -1
        members = torch.zeros(*slots.shape, seen.num_visual, dtype=torch.bool).scatter(2, slots[..., None], True)
        return MergedTokens(torch.cat([first, rest.mean(dim=1, keepdim=True)], dim=1), slots, numbers, members)

    def choosing_flops(self, sizes):
        return 0


@dataclass
class SwapAndDouble(InsideLLM):
    """In front of layer 0: two visual tokens of every row stay, in the other order and doubled."""

    name = "swap_and_double"
    positions = "repacked"

    def stages(self, num_visual, num_layers):
        return {0: 2}

    def choose(self, seen, counts):
        numbers = seen.tokens.numbers_BS
        keep = (numbers < 0) | (numbers == 3) | (numbers == 7)
        order = torch.arange(seen.tokens.length).repeat(len(numbers), 1)
        order[numbers == 3] += 5
        hidden = torch.where(seen.visual_BS[..., None], seen.hidden_BSD * 2, seen.hidden_BSD)
        return Choice(keep, [2] * len(numbers), hidden_BSD=hidden, order_BS=order)

    def choosing_flops(self, sizes):
        return 0


def prompt_embeddings(model, inputs):
    caught = {}
    hook = model.model.language_model.register_forward_pre_hook(lambda _, args, kw: caught.update(kw), with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return caught["inputs_embeds"][0], (inputs["input_ids"][0] == IMAGE).nonzero()[:, 0]


def last_logits(model, embeddings):
    with torch.no_grad():
        hidden = model.model.language_model(inputs_embeds=embeddings[None]).last_hidden_state
        return model.lm_head(hidden[0, -1])


@torch.no_grad()
def test_merged_tokens_before_the_language_model():
    model, inputs = tiny_llava((2,))
    embeddings, visual = prompt_embeddings(model, inputs)
    with KeepAndMean(keep=4)(model) as record:
        logits = model(**inputs).logits[0, -1]
        generated = model.generate(**inputs, max_new_tokens=2, do_sample=False, num_beams=2)
    first, second = visual[:36], visual[36:]
    expected = embeddings.clone()
    for image in (first, second):
        expected[image[3]] = embeddings[image[3:]].mean(dim=0)
    gone = torch.cat([first[4:], second[4:]])
    expected = expected[[place for place in range(len(embeddings)) if place not in gone]]
    torch.testing.assert_close(logits, last_logits(model, expected), atol=1e-5, rtol=0)
    assert generated.shape[1] == inputs["input_ids"].shape[1] + 2
    numbers = record.kept[0][0].tolist()
    assert numbers[:3] == [0, 1, 2] and numbers[4:7] == [36, 37, 38]
    assert numbers[3] >= 72 and numbers[7] >= 72 and numbers[3] != numbers[7]
    assert record.visual_tokens == [[8] * LAYERS]


@torch.no_grad()
def test_merged_and_moved_tokens_inside_the_language_model():
    model, inputs = tiny_llava((1,))
    embeddings, visual = prompt_embeddings(model, inputs)
    with SwapAndDouble()(model) as record:
        logits = model(**inputs).logits[0, -1]
    text_before, text_after = embeddings[: visual[0]], embeddings[visual[-1] + 1 :]
    expected = torch.cat([text_before, 2 * embeddings[visual[7]][None], 2 * embeddings[visual[3]][None], text_after])
    torch.testing.assert_close(logits, last_logits(model, expected), atol=1e-5, rtol=0)
    assert record.kept[0][0].tolist() == [7, 3]


@pytest.mark.parametrize("tiny", [tiny_llava, tiny_qwen2_vl])
def test_merging_keeps_a_batch_equal_to_singles(tiny):
    model, inputs = tiny((1, 0, 2))
    with KeepAndMean(keep=4)(model) as record:
        model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert [counts[0] for counts in record.visual_tokens] == [4, 0, 8]
