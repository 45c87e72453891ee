"""Methods that choose or merge before the language model: what all of them promise, and those that only choose."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel, LlavaConfig, LlavaForConditionalGeneration

import pruning
from pruning import solve
from pruning.choosing.merging import Clusters
from pruning.methods.cdpruner import clip_relevance, conditional_dpp
from pruning.models.sizes import Sizes
from tests.tiny_models import CLIP, FAMILIES, IMAGE, LAYERS, TEXT, tiny_llava

PARAMETERS = {
    "fastervlm": {"keep": 5},
    "cdpruner": {"keep": 5},
    "divprune": {"keep": 5},
    "visionzip": {"dominant": 3, "contextual": 2},
    "prumerge": {"keep": 5, "neighbours": 3},
    "prumerge_plus": {"keep": 5, "neighbours": 3},
    "tome": {"keep": 5},
    "pool": {"keep": 5},
    "scope": {"keep": 5},
    "holov": {"keep": 5},
    "mmtok": {"keep": 5},
    "prunesid": {"keep": 5},
    "hiprune": {"keep": 5},
}
ADAPTIVE = {"prumerge": {"neighbours": 3}, "prumerge_plus": {"neighbours": 3}}
CHOOSING = ("fastervlm", "cdpruner", "divprune")
CASES = [*PARAMETERS.items(), *ADAPTIVE.items()]
CASE_NAMES = [*PARAMETERS, *(f"{name}-adaptive" for name in ADAPTIVE)]


@torch.no_grad()
def run(model, inputs, name, **parameters):
    """Logits of the last token and the record."""
    with pruning.make(name, **parameters)(model) as record:
        return model(**inputs).logits[:, -1], record


def hooks(model):
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PARAMETERS)
def test_counts_are_those_of_the_formula_and_hooks_go(family, name):
    model, inputs = FAMILIES[family]((1,))
    with torch.no_grad():
        model(**inputs)
    before = hooks(model)
    method = pruning.make(name, **PARAMETERS[name])
    with method(model) as record, torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    visual = int((inputs["input_ids"] == IMAGE).sum())
    assert record.visual_tokens == [method.visual_tokens_per_layer(visual, LAYERS)] == [[5] * LAYERS]
    assert len(set(record.kept[0][0].tolist())) == 5
    assert tokens.shape[1] == inputs["input_ids"].shape[1] + 2
    assert hooks(model) == before


@pytest.mark.parametrize("name", PARAMETERS)
def test_budget_is_solved_and_costs_something(name):
    sizes = Sizes.of(tiny_llava((0,))[0].config, visual_tokens=36, text_tokens=8)
    method = solve(name, "25%", num_visual=36, num_layers=LAYERS)
    assert method.visual_tokens_per_layer(36, LAYERS) == [9] * LAYERS
    assert method.choosing_flops(sizes) > 0


@pytest.mark.parametrize(
    ("family", "name"),
    [*((family, name) for family in ("llava", "without cls") for name in PARAMETERS), ("qwen2_vl", "tome")],
)
@torch.no_grad()
def test_choosing_flops_equal_the_counter(family, name, monkeypatch):
    model, inputs = FAMILIES["llava" if family == "without cls" else family]((1,))
    if family == "without cls":
        model = llava_with({**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}, "full")
    counts = []

    def counted(choice):
        def count(*args):
            with FlopCounterMode(display=False) as counter:
                result = choice(*args)
            counts.append(counter.get_total_flops())
            return result

        return count

    method = pruning.make(name, **PARAMETERS[name])
    if name == "tome":  # it merges in the tower; projecting merged tokens is the model's own work
        monkeypatch.setattr(Clusters, "merge", lambda self, *args, merge=Clusters.merge: counted(merge)(self, *args))
    else:
        method.select = counted(method.select)
    with method(model):
        model(**inputs)
    visual = int((inputs["input_ids"] == IMAGE).sum())
    sizes = Sizes.of(model.config, visual_tokens=visual, text_tokens=inputs["input_ids"].shape[1] - visual)
    assert method.choosing_flops(sizes) == pytest.approx(sum(counts), rel=0.01)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_merging_has_no_formula(name):
    model, _ = tiny_llava((0,))
    method = pruning.make(name)
    for ask in (
        lambda: method.visual_tokens_per_layer(36, LAYERS),
        lambda: method.choosing_flops(Sizes.of(model.config, visual_tokens=36, text_tokens=8)),
    ):
        with pytest.raises(ValueError, match="no formula"):
            ask()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("divprune", {"keep": 4, "ratio": 0.1}, "give one of them"),
        ("divprune", {"ratio": 0}, "ratio must be"),
        ("visionzip", {"dominant": 4}, "both dominant and contextual"),
        ("visionzip", {"keep": 4, "dominant": 3, "contextual": 1}, "either keep, or both"),
        ("visionzip", {"dominant": 0, "contextual": 3}, "dominant must be"),
        ("prumerge", {"keep": 1}, "keep must be"),
        ("prumerge", {"keep": 4, "ratio": 0.1}, "give one of them"),
        ("prumerge_plus", {"neighbours": 0}, "neighbours must be"),
        ("tome", {"keep": 0}, "keep must be"),
        ("pool", {"keep": 2.5}, "keep must be"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        pruning.make(name, **parameters)


@pytest.mark.parametrize(
    ("name", "parameters"), [(name, {"keep": 37}) for name in PARAMETERS] + [("prumerge", {"ratio": 0.01})]
)
def test_parameters_that_do_not_fit_the_image(name, parameters):
    model, inputs = tiny_llava((1,))
    with pytest.raises(ValueError, match=r"36"):
        run(model, inputs, name, **parameters)


def llava_with(vision, strategy):
    config = LlavaConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        vision_feature_select_strategy=strategy,
    )
    return LlavaForConditionalGeneration(config).eval()


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=CASE_NAMES)
def test_towers_without_cls(name, parameters):
    model = llava_with({**CLIP, "model_type": "siglip_vision_model", "vision_use_head": False}, "full")
    _, inputs = tiny_llava((1, 2))
    logits, record = run(model, inputs, name, **parameters)
    assert logits.isfinite().all()
    if "keep" in parameters:
        assert [counts[0] for counts in record.visual_tokens] == [5, 10]


@pytest.mark.parametrize("name", ["visionzip", "prumerge", "tome"])
def test_cls_in_the_prompt_is_refused(name):
    model = llava_with(CLIP, "full")
    _, inputs = tiny_llava((1,))
    inputs["input_ids"] = torch.cat([torch.tensor([[7, IMAGE]]), inputs["input_ids"][:, 3:]], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with pytest.raises(ValueError, match="vision_feature_select_strategy"):
        run(model, inputs, name, **PARAMETERS[name])


def test_authors_settings():
    for keep, split in ((32, (27, 5)), (64, (54, 10)), (128, (108, 20)), (192, (162, 30))):
        dominant, contextual = split
        sizes = Sizes.of(tiny_llava((0,))[0].config, visual_tokens=576, text_tokens=8)
        by_keep, by_split = (
            pruning.make("visionzip", **parameters).choosing_flops(sizes)
            for parameters in ({"keep": keep}, {"dominant": dominant, "contextual": contextual})
        )
        assert by_keep == by_split
    counts = [pruning.make("prumerge_plus", ratio=1 / n).count(576) for n in (6, 9, 18, 36)]
    assert counts == [193, 129, 65, 33]
    assert [pruning.make("prumerge", ratio=1 / n).count(576) for n in (6, 9, 18, 36)] == [97, 65, 33, 17]
    for n in (6, 9, 18, 36):
        by_ratio = pruning.make("prumerge_plus", ratio=1 / n)
        by_keep = pruning.make("prumerge_plus", keep=by_ratio.count(576))
        assert by_keep.plan(576)[0] == by_ratio.plan(576)[0]
        assert list(by_keep.plan(576)[1]) == list(by_ratio.plan(576)[1])
    assert pruning.make("divprune", ratio=0.105).count(100) == 10  # half to even


def test_fastervlm_is_vispruner_with_all_important():
    model, inputs = tiny_llava((1, 2))
    _, fast = run(model, inputs, "fastervlm", keep=7)
    _, vis = run(model, inputs, "vispruner", keep=7, important_ratio=1.0)
    assert [kept[0].tolist() for kept in fast.kept] == [kept[0].tolist() for kept in vis.kept]


def test_cdpruner_follows_the_question():
    model, inputs = tiny_llava((1,))
    _, first = run(model, inputs, "cdpruner", keep=6)
    inputs["input_ids"][0, -4:] = torch.tensor([5, 77, 42, 61])
    _, second = run(model, inputs, "cdpruner", keep=6)
    assert first.kept[0][0].tolist() != second.kept[0][0].tolist()


def test_cdpruner_with_clip():
    model, inputs = tiny_llava((1, 1))
    text = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "eos_token_id": 49}
    torch.manual_seed(3)
    clip = CLIPModel(CLIPConfig(text_config={**text, "num_attention_heads": 2}, vision_config=CLIP, projection_dim=8))
    clip = clip.eval()
    inputs["pixel_values"][1] = inputs["pixel_values"][0]
    questions = [torch.tensor([[48, 3, 4, 49]]), torch.tensor([[48, 30, 21, 49], [48, 7, 8, 49]])]
    _, record = run(model, inputs, "cdpruner", keep=6, clip=clip, questions=questions)
    assert record.kept[0][0].tolist() != record.kept[1][0].tolist()
    with pytest.raises(ValueError, match="questions has fewer samples"):
        run(model, inputs, "cdpruner", keep=6, clip=clip, questions=questions[:1])
    with pytest.raises(ValueError, match="only a name"):
        run(model, inputs, "cdpruner", keep=6, clip="openai/clip-vit-large-patch14-336", questions=questions)

    with torch.no_grad():
        features = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
        patches = clip.visual_projection(clip.vision_model.post_layernorm(features))
        texts = [clip.get_text_features(ids).pooler_output for ids in questions]
        tokens = model.model.multi_modal_projector(features)
    relevance = torch.stack([clip_relevance(one, text) for one, text in zip(patches, texts, strict=True)])
    for row, kept in enumerate(conditional_dpp(tokens, relevance, 6)):
        assert record.kept[row][0].tolist() == kept.tolist()


@torch.no_grad()
def test_cdpruner_keeps_its_first_choice_in_decoding_without_a_cache():
    """Its fallback looks at the text, which then grows with every step."""
    model, inputs = tiny_llava((1, 2))
    options = {"max_new_tokens": 4, "do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    method = pruning.make("cdpruner", keep=6)
    with method(model) as record:
        cached = model.generate(**inputs, **options)
        first = [kept[0].tolist() for kept in record.kept]
        uncached = model.generate(**inputs, **options, use_cache=False)
        assert [kept[0].tolist() for kept in record.kept] == first
    torch.testing.assert_close(torch.stack(uncached.logits), torch.stack(cached.logits), atol=2e-5, rtol=0)
    longer = {**inputs, "input_ids": cached.sequences, "attention_mask": (cached.sequences != 0).long()}
    _, alone = run(model, longer, "cdpruner", keep=6)
    assert [kept[0].tolist() for kept in alone.kept] != first, "as a prompt of its own the longer text chooses others"


def test_relevance_decides_where_tokens_are_equally_diverse():
    relevance = torch.tensor([[0.1, 0.9, 0.5, 0.8], [0.3, 0.3, 0.3, 0.3]])
    kept = conditional_dpp(torch.eye(4).expand(2, -1, -1), relevance, 2)
    assert kept.tolist() == [[1, 3], [0, 1]]
