"""PyramidDrop, DART, VTW and SparseVLM beyond the golden cases: batches, families, budgets, and what they refuse."""

import math
from functools import cache

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import pruning
from pruning.methods.fastv import FastV
from pruning.methods.sequence import Sequence
from pruning.methods.sparsevlm import SparseVLM, cluster_by_density
from pruning.methods.vispruner import VisPruner
from pruning.methods.vtw import first_layer
from pruning.models.sizes import Sizes
from tests.tiny_models import FAMILIES, IMAGE, LAYERS

PROMPTS = (1, 0, 2)
GREEDY = {"max_new_tokens": 3, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
LLAVA_7B = {"num_visual": 576, "num_layers": 32}
METHODS = {
    "vtw": pruning.make("vtw", k=2),
    "pyramiddrop": pruning.make("pyramiddrop", layers=[1, 3, 4], ratio=0.6),
    "dart": pruning.make("dart", k=2, max_tokens=17),
    "dart, by index": pruning.make("dart", k=2, max_tokens=17, order="index_asc"),
    "dart, as a set": pruning.make("dart", k=2, max_tokens=17, visual_pivots=2, text_pivots=3, order="cpython_set"),
    "sparsevlm v1": pruning.make("sparsevlm", version="v1", layers=[0, 2, 3], share=0.6),
    "sparsevlm v2": pruning.make("sparsevlm", version="v2", layers=[0, 2], table=[14, 7]),
    "sequence": Sequence([VisPruner(keep=5), FastV(k=2, r=0.6)]),
    "sequence, merging": Sequence(
        [pruning.make("visionzip", dominant=4, contextual=2), SparseVLM(layers=[1], share=0.5)]
    ),
}


@cache
def build(family: str, prompts: tuple[int, ...], attention: str = "sdpa"):
    return FAMILIES[family](prompts, attention={"text_config": attention, "vision_config": "sdpa"})


def run(model, inputs, method, **options):
    with method(model) as record:
        return model.generate(**inputs, **GREEDY | options), record


@pytest.mark.parametrize("name", METHODS)
def test_decoding_without_cache_and_beams(name):
    model, inputs = build("llava_next", (1, 2))
    cached, _ = run(model, inputs, METHODS[name])
    uncached, _ = run(model, inputs, METHODS[name], use_cache=False)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(uncached.logits), atol=2e-5, rtol=0)
    assert cached.sequences.tolist() == uncached.sequences.tolist()
    beams, _ = run(model, inputs, METHODS[name], num_beams=2)
    again, _ = run(model, inputs, METHODS[name], num_beams=2, use_cache=False)
    assert beams.sequences.tolist() == again.sequences.tolist()


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@torch.no_grad()
def test_pyramiddrop_ranks_by_the_attention_of_the_layer_to_come(family):
    model, inputs = build(family, PROMPTS, "eager")
    attentions = model(**inputs, output_attentions=True).attentions
    with pruning.make("pyramiddrop", layers=[3], ratio=0.3)(model) as record:
        model(**inputs)
    for row in (0, 2):
        places = (inputs["input_ids"][row] == IMAGE).nonzero()[:, 0]
        scores = attentions[3][row, :, -1].mean(dim=0)[places]
        assert record.kept[row][3].tolist() == sorted(scores.topk(int(len(places) * 0.3)).indices.tolist())
        assert record.kept[row][2].tolist() == list(range(len(places)))


@torch.no_grad()
def test_dart_takes_turns_as_told_one_token_at_a_time():
    model, inputs = build("llava", (1, 2))
    output = model(**inputs, output_hidden_states=True)
    for order in ("norm_desc", "index_asc", "cpython_set"):
        method = pruning.make("dart", k=3, max_tokens=17, visual_pivots=3, text_pivots=2, order=order)
        with method(model) as record:
            model(**inputs)
        for row in range(2):
            ids = inputs["input_ids"][row]
            pad = int((inputs["attention_mask"][row] == 0).sum())
            visual = (ids == IMAGE).nonzero()[:, 0].tolist()
            norms = output.past_key_values.layers[2].keys[row].abs().sum(dim=(0, 2)).tolist()
            states = model.model.language_model.norm(output.hidden_states[3][row])
            pivots = sorted(visual, key=lambda place: -norms[place])[:3]
            text = sorted(range(visual[-1] + 1, len(ids)), key=lambda place: -norms[place])[:2]
            kept = set(pivots)
            turns = pivots + text
            if order == "index_asc":
                turns = sorted(turns)
            elif order == "cpython_set":
                turns = [place + pad for place in {place - pad for place in turns}]
            for pivot in turns:
                for _ in range(17 // 5):
                    free = [place for place in visual if place not in kept]
                    alike = torch.cosine_similarity(states[pivot], states[free], dim=-1)
                    kept.add(free[int(alike.argmin())])
            assert record.kept[row][3].tolist() == [visual.index(place) for place in sorted(kept)]


def raters(embeddings, visual, text):
    """By loops: text tokens that receive more than the mean."""
    received = [0.0] * len(text)
    for token in visual:
        closeness = torch.tensor([float(embeddings[token] @ embeddings[word]) for word in text]).softmax(dim=0)
        received = [old + float(new) for old, new in zip(received, closeness, strict=True)]
    return [word for word, much in zip(text, received, strict=True) if much > sum(received) / len(received)]


@pytest.mark.parametrize("version", ["v1", "v2"])
@torch.no_grad()
def test_sparsevlm_rates_by_text_behind_the_images(version):
    model, inputs = build("llava", (1, 2), "eager")
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    entered = []
    with SparseVLM(version=version, layers=[2], table=[12])(model) as record:
        handle = model.model.language_model.layers[3].register_forward_pre_hook(
            lambda module, args: entered.append(args[0])
        )
        model(**inputs)
        handle.remove()
    for row in range(2):
        ids = inputs["input_ids"][row]
        visual = (ids == IMAGE).nonzero()[:, 0].tolist()
        words = raters(output.hidden_states[0][row], visual, list(range(visual[-1] + 1, len(ids))))
        attention = output.attentions[2][row]
        if version == "v2":
            half = model.config.text_config.head_dim // 2
            for word in words:
                for token in visual:
                    angles = [(word - token) * 10000.0 ** (-step / half) for step in range(half)]
                    decay = 2 * sum(math.cos(angle) for angle in angles) / (2 * half) ** 0.5
                    attention[:, word, token] /= decay
        rated = attention.mean(dim=0)[words][:, visual].mean(dim=0)
        ranked = rated.argsort(descending=True).tolist()
        kept = record.kept[row][3].tolist()
        assert kept[:12] == sorted(ranked[:12])
        if version == "v2":
            assert len(kept) == 12 and record.merged[row] == {}
            continue
        pruned = len(visual) - 12
        candidates = ranked[12 : 12 + int(0.3 * pruned) + 1]
        clusters = len(candidates) // 10 + 1
        assert kept[12:] == [len(visual) + number for number in range(clusters)]
        merged = [record.merged[row][number] for number in kept[12:]]
        assert sorted(member for members in merged for member in members) == sorted(candidates)
        # Behind the kept visual tokens stand the means of what entered layer 3, then the text behind the images.
        behind = len(ids) - 1 - visual[-1]
        means = torch.stack(
            [output.hidden_states[3][row, [visual[m] for m in members]].mean(dim=0) for members in merged]
        )
        found = entered[0][row, -behind - clusters : -behind]
        torch.testing.assert_close(found, means, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_merged_tokens_of_later_stages_get_numbers_of_their_own():
    model, inputs = build("llava", (1, 2))
    with SparseVLM(layers=[0, 2, 3], table=[12, 8, 3])(model) as record:
        model(**inputs)
    for row, visual in enumerate((36, 72)):
        made = sorted(record.merged[row])
        assert made == list(range(visual, visual + len(made))) and len(made) >= 3
        # The last ones enter layer 4; a token is merged at most once.
        assert record.kept[row][4].tolist()[-1] == made[-1]
        members = [member for parts in record.merged[row].values() for member in parts]
        assert len(members) == len(set(members))


def test_clusters_are_dense_and_apart():
    points = torch.tensor([[0.0, 0], [0.1, 0], [0, 0.1], [5, 5], [5.1, 5], [5, 5.2], [0.1, 0.1]])
    centres, members = cluster_by_density(points[None], 2)
    assert {frozenset(row.nonzero()[:, 0].tolist()) for row in members[0]} == {
        frozenset({0, 1, 2, 6}),
        frozenset({3, 4, 5}),
    }
    assert all(members[0, number, centre] for number, centre in enumerate(centres[0].tolist()))
    assert members.sum(dim=1).eq(1).all()


def test_equal_densities_are_told_apart_by_index():
    # Two pairs, each the other's nearest: as dense as one another within a pair.
    points = torch.tensor([[0.0, 0], [0, 1], [9, 0], [9, 1]])
    centres, members = cluster_by_density(points[None], 2)
    assert sorted(centres[0].tolist()) == [0, 2]
    assert sorted(row.nonzero()[:, 0].tolist() for row in members[0]) == [[0, 1], [2, 3]]
    # Everything in one place: still as many clusters as asked, and every token in one of them.
    centres, members = cluster_by_density(torch.ones(1, 6, 3), 3)
    assert len(set(centres[0].tolist())) == 3 and members.sum(dim=1).eq(1).all() and members.any(dim=2).all()


@pytest.mark.parametrize("name", [name for name in METHODS if "," not in name and name != "sequence"])
@torch.no_grad()
def test_choosing_flops_equal_the_counter(name):
    model, inputs = build("llava", (1,))
    counted = 0

    class Counting(type(METHODS[name])):
        def choose(self, seen, counts):
            nonlocal counted
            with FlopCounterMode(display=False) as counter:
                choice = super().choose(seen, counts)
                if choice.merge is not None:
                    choice.merge.apply(seen.hidden_BSD)
            counted += counter.get_total_flops()
            return choice

    method = Counting(**vars(METHODS[name]))
    with method(model):
        model(**inputs)
    sizes = Sizes.of(model.config, visual_tokens=36, text_tokens=inputs["input_ids"].shape[1] - 36)
    assert method.choosing_flops(sizes) == pytest.approx(counted, rel=0.01)


@torch.no_grad()
def test_the_first_layer_for_vtw_is_where_the_output_stops_changing():
    model, inputs = build("llava", (1,))
    full = model(**inputs).logits[0, -1].log_softmax(dim=-1)
    divergences = {}
    for k in range(1, LAYERS):
        with pruning.make("vtw", k=k)(model):
            dropped = model(**inputs).logits[0, -1].log_softmax(dim=-1)
        divergences[k] = float((dropped.exp() * (dropped - full)).sum())
    for k, divergence in divergences.items():
        first = min(layer for layer, other in divergences.items() if other <= divergence + 1e-6)
        assert first_layer(model, [inputs], divergence + 1e-6, start=1) == first <= k
    with pytest.raises(ValueError, match="raise most"):
        first_layer(model, [inputs], 0.0, start=1)
