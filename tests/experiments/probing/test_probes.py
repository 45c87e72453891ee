"""Quartiles and last-query scores keep what they say, in padded batches and for every family."""

import itertools

import pytest
import torch

from experiments.probing.attention import prefill_statistics
from experiments.probing.probes import KeepByLastQuery, KeepQuartile, Withdraw
from experiments.probing.random_masks import RandomMasks
from pruning.choosing.selection import stable_top_k
from tests.tiny_models import FAMILIES, tiny_llava


@torch.no_grad()
def kept(method, model, inputs):
    with method(model) as record:
        model(**inputs)
    return [[numbers.tolist() for numbers in sample] for sample in record.kept]


@pytest.mark.parametrize("layer", [0, 3])
@pytest.mark.parametrize("quartile", [1, 2, 3, 4])
def test_a_quartile_is_a_run_of_positions_from_its_layer_on(layer, quartile):
    model, inputs = tiny_llava((1, 1))
    inputs["attention_mask"][0, 0] = 0  # one row is shorter
    for sample in kept(KeepQuartile(layer=layer, quartile=quartile), model, inputs):
        assert sample[:layer] == [list(range(36))] * layer
        assert sample[layer:] == [list(range(9 * (quartile - 1), 9 * quartile))] * (6 - layer)


@pytest.mark.parametrize("family", FAMILIES)
def test_quartiles_share_out_all_tokens_of_every_prompt(family):
    model, inputs = FAMILIES[family]((1, 2))
    quarters = [kept(KeepQuartile(layer=1, quartile=number), model, inputs) for number in (1, 2, 3, 4)]
    for row in range(2):
        everything = quarters[0][row][0]
        assert list(itertools.chain.from_iterable(quarter[row][1] for quarter in quarters)) == everything
        lengths = [len(quarter[row][1]) for quarter in quarters]
        assert max(lengths) - min(lengths) <= 1


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 2])
def test_withdrawn_images_leave_the_answer_to_the_text(family, layer):
    """From layer 0 on the logits do not depend on the pixels; later they do, on those of the layers before."""
    model, inputs = FAMILIES[family]((1, 1))
    other = inputs | {"pixel_values": inputs["pixel_values"].flip(0) * 0.5}
    with Withdraw(k=layer)(model) as record:
        logits, changed = (model(**given).logits[:, -1] for given in (inputs, other))
    assert record.visual_tokens[0][layer:] == [0] * (len(record.visual_tokens[0]) - layer)
    assert torch.equal(logits, changed) == (layer == 0)


@pytest.mark.parametrize("layer", [0, 1, 5])
@pytest.mark.parametrize(("rope", "kind"), [(True, "last"), (False, "equi_last")])
def test_the_score_is_the_unpruned_model_s(layer, rope, kind):
    model, inputs = tiny_llava((1, 1, 1))
    inputs["attention_mask"][1, :3] = 0
    attention_BN = prefill_statistics(model, inputs)[kind][:, layer]
    chosen = kept(KeepByLastQuery(keep=7, layer=layer, rope=rope), model, inputs)
    assert [sample[0] for sample in chosen] == stable_top_k(attention_BN, 7).tolist()
    assert all(sample == [sample[0]] * 6 for sample in chosen)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_score_of_one_prompt_alone_is_the_same_in_a_padded_batch(family):
    model, inputs = FAMILIES[family]((1,))
    attention_N = prefill_statistics(model, inputs)["last"][0, 1]
    assert kept(KeepByLastQuery(keep=3), model, inputs)[0][0] == stable_top_k(attention_N[None], 3)[0].tolist()


def test_removing_rope_changes_what_is_kept():
    model, inputs = tiny_llava((1, 1))
    assert kept(KeepByLastQuery(keep=9), model, inputs) != kept(KeepByLastQuery(keep=9, rope=False), model, inputs)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_random_masks_have_the_sizes_they_are_told(family):
    model, inputs = FAMILIES[family]((1, 2))
    one, again, other = (kept(RandomMasks(k=2, counts=[3, 5], seed=seed), model, inputs) for seed in (0, 0, 1))
    assert [[len(numbers) for numbers in sample[1:]] for sample in one] == [
        [len(sample[1]), *[count] * (len(sample) - 2)] for sample, count in zip(one, (3, 5), strict=True)
    ]
    assert one == again
    assert one != other
    with pytest.raises(ValueError, match="counts has 1 samples but the batch more"):
        kept(RandomMasks(counts=[3]), model, inputs)


def test_what_the_model_has_no_room_for_is_refused():
    model, inputs = tiny_llava((1,))
    with pytest.raises(ValueError, match="quartile must be 1, 2, 3 or 4, not 5"):
        KeepQuartile(quartile=5)
    with pytest.raises(ValueError, match="layer=6 is not one of the 6 decoder layers"):
        kept(KeepQuartile(layer=6), model, inputs)
    with pytest.raises(ValueError, match="layer=6 is not one of the 6 decoder layers"):
        kept(KeepByLastQuery(keep=3, layer=6), model, inputs)
