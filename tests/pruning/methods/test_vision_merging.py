"""What is particular to each method that merges before the language model."""

import pytest
import torch
from torch.nn.functional import normalize

import pruning
from pruning.methods.prumerge import merge_neighbours
from pruning.methods.visionzip import merge_contextual
from tests.tiny_models import FAMILIES, IMAGE, tiny_llava, tiny_qwen2_vl


@torch.no_grad()
def run(model, inputs, name, **parameters):
    with pruning.make(name, **parameters)(model) as record:
        model(**inputs)
    return record


@torch.no_grad()
def vision_states(model, inputs):
    """Features of layer L-2 with [CLS], and what goes into the attention of layers L-2 and L-1."""
    tower = model.model.vision_tower
    states = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
    layers = tower.encoder.layers
    return states[-2], layers[-2].layer_norm1(states[-3]), layers[-1].layer_norm1(states[-2])


def entering(model, inputs, name, **parameters):
    """What enters the language model in place of the image of every row: `[B, T, D]`, and the record."""
    seen = {}
    hook = model.model.language_model.layers[0].register_forward_pre_hook(lambda _, args: seen.update(hidden=args[0]))
    record = run(model, inputs, name, **parameters)
    hook.remove()
    start = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    return seen["hidden"][:, start : start + record.visual_tokens[0][0]], record


@pytest.mark.parametrize("contextual", [0, 2])
@torch.no_grad()
def test_visionzip_on_a_model(contextual):
    model, inputs = tiny_llava((1,))
    tokens, record = entering(model, inputs, "visionzip", dominant=4, contextual=contextual)
    features, attended, _ = vision_states(model, inputs)
    attention = model.model.vision_tower.encoder.layers[-2].self_attn
    q, k = (part(attended)[0].view(37, 2, 8).transpose(0, 1) for part in (attention.q_proj, attention.k_proj))
    scores = (q[:, :1] @ k.mT * 8**-0.5).softmax(dim=-1)[:, 0, 1:].sum(dim=0)
    dominant = scores.topk(3).indices.sort().values
    expected = [features[0, :1], features[0, 1:][dominant]]
    rest = torch.tensor([index for index in range(36) if index not in dominant.tolist()])
    keys = normalize(k.mean(dim=0)[1:], dim=-1)
    targets = rest[:: len(rest) // 2][:2] if contextual else rest[:0]
    others = torch.tensor([index for index in rest.tolist() if index not in targets.tolist()])
    for number, target in enumerate(targets):
        joined = others[(keys[others] @ keys[targets].T).argmax(dim=1) == number]
        expected.append((features[0, 1:][target] + features[0, 1:][joined].mean(dim=0))[None])
    torch.testing.assert_close(tokens[0], model.model.multi_modal_projector(torch.cat(expected)), rtol=1e-4, atol=1e-4)
    numbers = record.kept[0][0]
    assert numbers[1:4].tolist() == dominant.tolist() and (numbers >= 36).sum() == 1 + contextual


@pytest.mark.parametrize("name", ["prumerge", "prumerge_plus"])
@torch.no_grad()
def test_prumerge_on_a_model(name):
    model, inputs = tiny_llava((1,))
    tokens, record = entering(model, inputs, name, keep=7, neighbours=3)
    features, _, attended = vision_states(model, inputs)
    attention = model.model.vision_tower.encoder.layers[-1].self_attn
    q, k = attention.q_proj(attended)[0], attention.k_proj(attended)[0]
    weights = (q[:1] @ k.T * 16**-0.5).softmax(dim=-1)[0, 1:]
    spaced = [6, 18, 30] if name == "prumerge_plus" else []
    free = torch.tensor([index for index in range(36) if index not in spaced])
    kept = free[weights[free].topk(6 - len(spaced)).indices].tolist() + spaced
    keys, patches = normalize(k[1:], dim=-1), features[0, 1:]
    expected = []
    for index in kept:
        near = [other for other in (keys @ keys[index]).argsort(descending=True).tolist() if other != index][:3]
        expected.append(patches[index] + sum(patches[other] * weights[other] for other in near))
    dropped = [index for index in range(36) if index not in kept]
    expected.append(sum(patches[index] * weights[index] for index in dropped))
    torch.testing.assert_close(
        tokens[0], model.model.multi_modal_projector(torch.stack(expected)), rtol=1e-4, atol=1e-4
    )
    assert record.kept[0][0][:-1].tolist() == kept and record.kept[0][0][-1] >= 36


def test_adaptive_counts_differ_within_a_batch():
    model, inputs = tiny_llava((1, 1, 1, 1))
    inputs["pixel_values"] *= torch.tensor([0.1, 1, 3, 10]).view(-1, 1, 1, 1)
    record = run(model, inputs, "prumerge_plus")
    counts = [counts[0] for counts in record.visual_tokens]
    assert len(set(counts)) > 1 and [len(kept[0]) for kept in record.kept] == counts


def test_visionzip_takes_cls_of_the_base_crop():
    model, inputs = FAMILIES["llava_next"]((1,))
    tokens, _ = entering(model, inputs, "visionzip", dominant=1, contextual=0)
    with torch.no_grad():
        crops = inputs["pixel_values"][0]
        states = model.model.vision_tower(crops, output_hidden_states=True).hidden_states[-2]
        expected = model.model.multi_modal_projector(states[0, :1])
    torch.testing.assert_close(tokens[0], expected, rtol=1e-4, atol=1e-4)


def test_contextual_tokens_add_the_mean_of_what_joins():
    features = torch.arange(6.0)[None, :, None]
    # Token 2 is dominant; of 0, 1, 3, 4, 5 the targets are 0 and 3, and the keys say who joins whom.
    keys = torch.tensor([[[1.0, 0], [1, 0.1], [9, 9], [0, 1], [0.1, 1], [0.2, 1]]])
    targets, merged, members = merge_contextual(features, keys, torch.tensor([[2]]), 2)
    assert targets.tolist() == [[0, 3]]
    assert [row.nonzero()[:, 0].tolist() for row in members[0]] == [[0, 1], [3, 4, 5]]
    assert merged[0, :, 0].tolist() == [0 + 1, 3 + (4 + 5) / 2]
    targets, merged, _ = merge_contextual(features, keys[:, [0] * 6], torch.tensor([[2]]), 2)
    assert merged[0, 1, 0] == 3  # nothing joins: equal keys go to the first target


def test_kept_tokens_add_their_neighbours_and_the_rest_is_one_token():
    features = torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]])
    keys = torch.tensor([[[1.0, 0], [1, 0.1], [0, 1], [0.3, 1]]])
    attention = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    kept, counts = torch.tensor([[3, 1]]), torch.tensor([[2]])
    merged, members = merge_neighbours(features, keys, attention, kept, counts, neighbours=1)
    torch.testing.assert_close(merged[0, :, 0], torch.tensor([1000 + 30.0, 10 + 0.1, 0.1 + 30]))
    assert [row.nonzero()[:, 0].tolist() for row in members[0]] == [[2, 3], [0, 1], [0, 2]]
    ragged, _ = merge_neighbours(features, keys, attention, kept, torch.tensor([[1]]), neighbours=1)
    torch.testing.assert_close(ragged[0, :, 0], torch.tensor([1030.0, 32.1, 32.1]))


def test_adaptive_counts_follow_the_outliers():
    attention = torch.full((2, 40), 0.01) + torch.arange(40) * 1e-5
    attention[0, [5, 9]] = torch.tensor([0.2, 0.3])
    order, counts = pruning.make("prumerge").order(attention)
    assert counts.tolist() == [[2], [1]]  # without an outlier the highest stays
    assert order[0, :2].tolist() == [9, 5] and order[1, 0] == 39
    order, counts = pruning.make("prumerge_plus").order(attention)
    # A share of 1/20 has step 6: 0, 6, ..., 36, besides the outliers; 1/40 has step 13.
    assert order[0, : counts[0]].tolist() == [9, 5, *range(0, 39, 6)]
    assert order[1, : counts[1]].tolist() == [39, 0, 13, 26]


def test_fixed_plus_takes_no_token_twice():
    attention = torch.zeros(1, 36)
    method = pruning.make("prumerge_plus", ratio=1 / 9)
    spaced = list(range(4, 35, 9))
    attention[0, spaced] = 1.0
    order, counts = method.order(attention)
    assert counts.tolist() == [[8]] and order[0, :8].tolist() == [0, 1, 2, 3, *spaced]


def made_and_staying(record, sample):
    """What the tokens of a sample were made of, and the numbers of those that stay as they are."""
    made = record.merged[sample]
    return list(made.values()), [number for number in record.kept[sample][0].tolist() if number not in made]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_of_an_image_is_recorded_where_it_went(family):
    model, inputs = FAMILIES[family]((1, 2))
    counts = [int((ids == IMAGE).sum()) for ids in inputs["input_ids"]]
    for name, parameters in (("pool", {"keep": 5}), ("tome", {"keep": 5})):
        record = run(model, inputs, name, **parameters)
        for sample, count in enumerate(counts):
            made, stay = made_and_staying(record, sample)
            assert sorted([*stay, *(part for parts in made for part in parts)]) == list(range(count))
    record = run(model, inputs, "visionzip", dominant=3, contextual=2)
    for sample, images in enumerate((1, 2)):
        made, stay = made_and_staying(record, sample)
        cls = 0 if family.startswith("qwen") else images
        assert sum(not parts for parts in made) == cls and len(stay) == 3 * images - cls
        assert len(made) == 2 * images + cls, "a contextual token is made of its target at least"
        assert sorted([*stay, *(part for parts in made for part in parts)]) == list(range(counts[sample]))
    record = run(model, inputs, "prumerge", keep=5, neighbours=3)
    kept = [int(number) for number in record.kept[0][0] if number < counts[0]]
    (extra,) = [number for number in record.merged[0] if number >= counts[0]]
    assert record.merged[0][extra] == [number for number in range(counts[0]) if number not in kept]
    assert len(kept) == 4 and all(len(record.merged[0][number]) == 4 for number in kept)
    assert all(number in record.merged[0][number] for number in kept)


@pytest.mark.parametrize("name", ["pool", "tome"])
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_a_merged_token_is_the_mean_of_what_the_record_says(family, name):
    model, inputs = FAMILIES[family]((1,))
    visual, _ = entering(model, inputs, "full")
    tokens, record = entering(model, inputs, name, keep=7)
    means = [visual[0, record.merged[0].get(int(number), [int(number)])].mean(dim=0) for number in record.kept[0][0]]
    torch.testing.assert_close(tokens[0], torch.stack(means), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["visionzip", "prumerge", "tome", "pool"])
@torch.no_grad()
def test_merged_tokens_keep_positions_with_three_axes(name):
    model, inputs = tiny_qwen2_vl((1,))
    caught = {}
    hook = model.model.language_model.layers[0].register_forward_pre_hook(
        lambda _, args, kw: caught.update(kw), with_kwargs=True
    )
    model(**inputs)
    full = caught["position_embeddings"][0]
    record = run(model, inputs, name, keep=5)
    hook.remove()
    cos = caught["position_embeddings"][0]
    assert cos.shape[1] == full.shape[1] - 24 + 5
    same = (cos[0][:, None] == full[0]).all(dim=-1).float()
    assert same.any(dim=1).all()
    places = same.argmax(dim=1)
    assert torch.equal(places, places.sort().values)
    start = int((inputs["input_ids"][0] == IMAGE).nonzero()[0])
    for number, place in zip(record.kept[0][0].tolist(), places[start:].tolist(), strict=False):
        assert number >= 24 or place == start + number
