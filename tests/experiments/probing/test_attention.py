"""Column statistics agree with the full attention maps of an eager model, and never build such a map."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from analysis.attention import AttentionSums, quartile_shares, selected
from experiments.probing.attention import column_statistics, prefill_statistics
from pruning.models.projections import Projections
from tests.tiny_models import FAMILIES, IMAGE, tiny_llava, tiny_llava_next

DECODER_KINDS = ("image", "text", "full", "last", "equi_last")


def from_full_maps(model, inputs) -> dict[str, torch.Tensor]:
    """The statistics of an eager model's whole maps, sample by sample, straight from their definitions."""
    with torch.inference_mode():
        outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
    totals = {kind: [] for kind in DECODER_KINDS}
    for sample in range(len(inputs["input_ids"])):
        visual = (inputs["input_ids"][sample] == IMAGE).nonzero()[:, 0]
        prompt = inputs["attention_mask"][sample].nonzero()[:, 0]
        text = prompt[prompt > visual[-1]]
        rows = {kind: [] for kind in DECODER_KINDS}
        for number, layer in enumerate(model.model.language_model.layers):
            attention = outputs.attentions[number][sample].mean(0)
            rows["image"].append(attention[visual][:, visual].sum(0) / torch.arange(len(visual), 0, -1))
            rows["text"].append(attention[text][:, visual].sum(0) / len(text))
            able = torch.stack([(prompt >= column).sum() for column in visual])
            rows["full"].append(attention[prompt][:, visual].sum(0) / able)
            rows["last"].append(attention[-1, visual])
            unrotated = last_row_without_rotation(layer, outputs.hidden_states[number][sample, prompt])
            rows["equi_last"].append(unrotated[visual - prompt[0]])
        for kind in DECODER_KINDS:
            totals[kind].append(torch.stack(rows[kind]))
    return {kind: torch.stack(values) for kind, values in totals.items()}


@torch.inference_mode()
def last_row_without_rotation(layer, hidden_SE: torch.Tensor) -> torch.Tensor:
    """Mean over heads of softmax(q k / sqrt(d)), q of the last token, neither rotated."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden_SE)
    d = attention.head_dim
    queries, keys = attention.q_proj(normed[-1]).view(-1, d), attention.k_proj(normed).view(len(normed), -1, d)
    group = len(queries) // keys.shape[1]
    return torch.stack([(keys[:, h // group] @ q / d**0.5).softmax(0) for h, q in enumerate(queries)]).mean(0)


@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_equals_full_maps(attention, chunk):
    model, inputs = tiny_llava((1, 1, 1), attention=attention)
    assert inputs["attention_mask"].min() == 0, "the batch must be padded"
    streamed = prefill_statistics(model, inputs, chunk=chunk)
    eager, _ = tiny_llava((1, 1, 1), attention="eager")
    expected = from_full_maps(eager, inputs)
    for kind in DECODER_KINDS:
        assert streamed[kind].shape == expected[kind].shape == (3, 6, 36)
        torch.testing.assert_close(streamed[kind], expected[kind], atol=1e-5, rtol=0)
        assert expected[kind].std(-1).min() > 1e-4, f"{kind} is too flat to tell right from wrong"


def test_cls_row_equals_the_vision_towers_map():
    model, inputs = tiny_llava((1, 1), attention="eager")
    with torch.inference_mode():
        maps = model.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions
    streamed = prefill_statistics(model, inputs)["cls"]
    torch.testing.assert_close(streamed[:, 0], maps[-2][:, :, 0, 1:].mean(1), atol=1e-5, rtol=0)


def test_without_rotation_equal_keys_get_equal_attention():
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, 9, 8, generator=generator)
    keys = torch.randn(1, 1, 8, generator=generator).expand(1, 9, 8)
    angles = torch.arange(9)[:, None] * torch.tensor([1.0, 0.1])
    rotary = tuple(wave(torch.cat([angles, angles], dim=-1))[None] for wave in (torch.cos, torch.sin))
    mask, visual = torch.ones(1, 9, dtype=torch.bool), torch.arange(2, 6)[None]
    statistics = column_statistics(Projections(queries, keys, rotary, head_dim=4), mask, visual)
    torch.testing.assert_close(statistics["equi_last"], torch.full((1, 4), 1 / 9))
    assert statistics["last"].std() > 0.01


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_and_batches_equal_singles(family):
    model, inputs = FAMILIES[family]((1,))
    single = prefill_statistics(model, inputs)
    visual = int((inputs["input_ids"] == IMAGE).sum())
    assert single["last"].shape == (1, 6, visual)
    assert single["cls"].shape == (1, 1, visual)
    assert all(bool((values >= 0).all() and (values <= 1).all()) for values in single.values())
    if family == "llava":
        _, batch = tiny_llava((1, 1))
        both = prefill_statistics(model, batch)
        second = {"input_ids": batch["input_ids"][1:], "pixel_values": batch["pixel_values"][1:]}
        for kind, values in prefill_statistics(model, second).items():
            torch.testing.assert_close(both[kind][1:], values, atol=1e-6, rtol=0)


class LargestMap(TorchDispatchMode):
    """Notes the largest product of the last two sizes among tensors with a dimension of `heads` before them."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.largest = heads, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor) and value.ndim >= 3 and value.shape[-3] == self.heads:
                self.largest = max(self.largest, value.shape[-1] * value.shape[-2])
        return result


def test_no_full_map_is_built():
    model, inputs = tiny_llava((1,))
    length, chunk = inputs["input_ids"].shape[1], 4
    with LargestMap(heads=4) as seen:
        prefill_statistics(model, inputs, chunk=chunk)
    assert 0 < seen.largest <= length * max(chunk, 8), "queries and keys have 8 columns, maps of a chunk have 4 rows"
    with LargestMap(heads=4) as seen:
        prefill_statistics(model, inputs, chunk=length)
    assert seen.largest == length * length, "the measurement would notice a full map"


def hooks_of(model) -> list[list]:
    """Every hook of every module."""
    return [[*module._forward_hooks.values(), *module._forward_pre_hooks.values()] for module in model.modules()]


def test_model_is_untouched_even_after_an_error():
    model, inputs = tiny_llava((1,))
    with torch.inference_mode():
        before = model(**inputs).logits
    hooks = hooks_of(model)  # transformers' own
    prefill_statistics(model, inputs)
    with pytest.raises(ValueError):
        prefill_statistics(model, {**inputs, "pixel_values": inputs["pixel_values"].repeat(2, 1, 1, 1)})
    assert hooks_of(model) == hooks
    with torch.inference_mode():
        assert torch.equal(model(**inputs).logits, before)


def test_prompts_that_cannot_be_compared_by_token_index():
    model, inputs = tiny_llava_next((1, 1))
    with pytest.raises(ValueError, match=r"same number of visual tokens .*\[37, 51\].*resize"):
        prefill_statistics(model, inputs)
    model, inputs = tiny_llava((0,))
    with pytest.raises(ValueError, match="same number of visual tokens"):
        prefill_statistics(model, inputs)
    model, inputs = tiny_llava((1,))
    cut = {**inputs, "input_ids": inputs["input_ids"][:, :-4], "attention_mask": inputs["attention_mask"][:, :-4]}
    with pytest.raises(ValueError, match="ends in a visual token"):
        prefill_statistics(model, cut)
    model, inputs = tiny_llava((2,))
    with pytest.raises(ValueError, match="one image a prompt"):
        prefill_statistics(model, inputs)


def test_sums_do_not_grow_and_average_over_samples():
    model, inputs = tiny_llava((1, 1, 1))
    statistics = prefill_statistics(model, inputs)
    parts = [{kind: values[rows] for kind, values in statistics.items()} for rows in (slice(0, 1), slice(1, 3))]
    whole, split = AttentionSums(layer=1, keep=4), AttentionSums(layer=1, keep=4)
    whole.add(statistics)
    for part in parts:
        split.add(part)
    arrays, after = whole.arrays(), split.arrays()
    np.testing.assert_allclose(after["mean/text"], statistics["text"].double().mean(0))
    assert after["samples"] == 3
    for name, array in arrays.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-12)
    for _ in range(3):
        split.add(statistics)
    assert {name: array.shape for name, array in split.arrays().items()} == {n: a.shape for n, a in arrays.items()}
    assert after["selected/last"].sum() == pytest.approx(4)
    assert after["selected/last"].max() <= 1
    with pytest.raises(ValueError, match="expected 36 visual tokens .* got 35"):
        split.add({kind: values[..., 1:] for kind, values in statistics.items()})


def test_quartile_shares_by_position():
    np.testing.assert_allclose(quartile_shares(np.array([1.0, 1, 2, 2, 0, 0, 3, 1])), [0.2, 0.4, 0.0, 0.4])
    uneven = quartile_shares(np.ones(10))
    assert uneven.sum() == pytest.approx(1)
    assert sorted(uneven * 10) == pytest.approx([2, 2, 3, 3])


def test_selection_breaks_ties_by_index():
    rows = torch.tensor([[0.1, 0.3, 0.3, 0.3], [0.4, 0.1, 0.2, 0.3]])
    assert selected(rows, 2).tolist() == [[False, True, True, False], [True, False, False, True]]
