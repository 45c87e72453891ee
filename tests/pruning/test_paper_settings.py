"""The authors' settings: what their numbers of tokens mean, and that they run."""

from functools import cache

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration

import pruning
from pruning.choosing.budget import mean_visual_tokens
from pruning.paper_settings import LAYERS, NUM_VISUAL, PAPER_SETTINGS, SHARES, paper, paper_settings
from tests.tiny_models import CLIP, IMAGE, TEXT

ENTRIES = [
    (method, model, tokens)
    for method, models in PAPER_SETTINGS.items()
    for model, found in models.items()
    for tokens in found
]


@pytest.mark.parametrize(("name", "model", "tokens"), ENTRIES)
def test_the_number_is_what_the_paper_counts(name, model, tokens):
    preset, method = paper_settings(name, model)[tokens], paper(name, model=model, tokens=tokens)
    assert preset.source and method == pruning.make(name, **vars(method))
    if preset.counted == "by the image":
        with pytest.raises(ValueError, match="no formula"):
            method.visual_tokens_per_layer(NUM_VISUAL, LAYERS[model])
        return
    per_layer = method.visual_tokens_per_layer(NUM_VISUAL, LAYERS[model])
    counted = {
        "entering": per_layer[0],
        "final": per_layer[-1],
        "after layers": mean_visual_tokens([*per_layer[1:], per_layer[-1]]),
        "mean": mean_visual_tokens(per_layer),
    }[preset.counted]
    exact = preset.counted in ("entering", "final")
    assert counted == pytest.approx(tokens + preset.extra, abs=0 if exact else 1)
    # Before the language model the number is the budget; in all other countings it is not, unless it is the mean.
    if preset.counted == "entering":
        assert mean_visual_tokens(per_layer) == tokens + preset.extra
    elif preset.counted != "mean":
        assert mean_visual_tokens(per_layer) > 1.05 * tokens


@pytest.mark.parametrize(
    ("name", "model", "tokens", "expected"),
    [
        ("vispruner", "llava-1.5-13b", 32, {"keep": 32, "important_ratio": 0.5}),
        ("visionzip", "llava-1.5-7b", 64, {"dominant": 54, "contextual": 10}),
        ("visionzip", "llava-1.5-7b", 192, {"dominant": 162, "contextual": 30}),
        ("fastv", "llava-1.5-7b", 306, {"k": 2, "r": 0.5}),
        ("dart", "llava-1.5-7b", 128, {"k": 2, "max_tokens": 128}),
        ("vtw", "llava-1.5-7b", 270, {"k": 15}),
        ("vscan", "llava-1.5-7b", 64, {"keep": 96, "layer": 16}),
        ("mmtok", "llava-1.5-7b", 64, {"keep": 64, "alpha": 0.5, "text_temperature": 0.02}),
    ],
)
def test_settings_of_the_papers(name, model, tokens, expected):
    method = paper(name, model=model, tokens=tokens)
    assert {key: getattr(method, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("model", "tokens", "kept"),
    [("llava-1.5-7b", 192, 166), ("llava-1.5-7b", 128, 98), ("llava-1.5-7b", 64, 30), ("llava-1.5-13b", 64, 37)],
)
def test_fastv_solved_for_a_mean_keeps_fewer_in_the_end(model, tokens, kept):
    assert paper_settings("fastv", model)[tokens].solved
    assert paper("fastv", model=model, tokens=tokens).stages(NUM_VISUAL, LAYERS[model]) == {2: kept}


@pytest.mark.parametrize(
    ("name", "model", "theirs"),
    [
        ("visionzip", "llava-1.5-7b", [192, 128, 64, 32]),
        ("sparsevlm", "llava-1.5-7b", [192, 128, 96, 64]),
        ("dart", "llava-1.5-7b", [128]),
        ("divprune", "llava-1.5-7b", []),
        ("prumerge_plus", "llava-1.5-7b", [144]),
        ("pyramiddrop", "llava-1.5-7b", [270]),
        ("pyramiddrop", "llava-1.5-13b", []),
        ("fastv", "llava-1.5-7b", [306]),
        ("scope", "llava-1.5-7b", [192, 128, 64]),
        ("scope", "llava-1.5-13b", []),
        ("holov", "llava-1.5-7b", [64]),
        ("vscan", "llava-1.5-7b", [64]),
    ],
)
def test_a_setting_says_whether_it_is_the_authors_own(name, model, theirs):
    own = [tokens for tokens, preset in paper_settings(name, model).items() if not (preset.solved or preset.assumed)]
    assert own == theirs


def test_other_parameters_may_be_given():
    assert paper("sparsevlm", model="llava-1.5-7b", tokens=64, version="v2").version == "v2"


@pytest.mark.parametrize("name", SHARES)
def test_shares_on_qwen_are_what_the_papers_count(name):
    for share in SHARES[name]:
        method = paper(name, model="qwen2.5-vl-7b", share=share, num_visual=1024)
        if name == "vscan":
            mean = mean_visual_tokens(method.visual_tokens_per_layer(1024, 28))
            assert mean / 1024 == pytest.approx(share, abs=0.001)
        else:
            assert method.ratio == share


def test_holov_cuts_as_many_crops_as_published():
    assert [paper("holov", model="llava-1.5-7b", tokens=tokens)._crops(576) for tokens in (192, 128, 64)] == [5, 8, 16]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vidcom2", {"share": 0.5}, "no setting for a share of 0.5.*0.25, 0.15"),
        ("vidcom2", {"tokens": 64}, "no setting for a share of None"),
        ("vscan", {"share": 0.111}, "give num_visual"),
        ("fastv", {"share": 0.25}, "Methods with one: vscan, vidcom2, flashvid"),
    ],
)
def test_what_is_not_published_for_qwen(name, options, message):
    with pytest.raises(ValueError, match=message):
        paper(name, model="qwen2.5-vl-7b", **options)


@pytest.mark.parametrize(
    ("name", "model", "tokens", "message"),
    [
        ("fastv", "llava-1.5-7b", 32, r"no setting for 32.*192 \(mean\), 128 \(mean\), 64 \(mean\)"),
        ("dart", "llava-1.5-7b", 96, r"192 \(final\), 128 \(final\), 64 \(final\)"),
        ("dart", "llava-1.5-13b", 128, "but for llava-1.5-7b"),
        ("tome", "llava-1.5-7b", 64, "no setting.*vispruner, fastervlm"),
        ("vispruner", "llava-next-7b", 64, "Models with settings: llava-1.5-7b, llava-1.5-13b"),
        ("vizpruner", "llava-1.5-7b", 64, "unknown method"),
    ],
)
def test_what_is_not_published(name, model, tokens, message):
    with pytest.raises(ValueError, match=message):
        paper(name, model=model, tokens=tokens)


@cache
def shaped_like_7b():
    """32 decoder layers and 24x24 patches, all of them narrow."""
    config = LlavaConfig(
        vision_config={**CLIP, "image_size": 96},
        text_config={"model_type": "llama", **TEXT, "num_hidden_layers": 32, "max_position_embeddings": 1024},
        image_token_index=IMAGE,
    )
    torch.manual_seed(0)
    ids = torch.tensor([[5, *[IMAGE] * NUM_VISUAL, 7, 8, 9, 10, 11]])
    return LlavaForConditionalGeneration(config).eval(), {"input_ids": ids, "pixel_values": torch.randn(1, 3, 96, 96)}


@pytest.mark.parametrize("name", [name for name in PAPER_SETTINGS if "llava-1.5-7b" in PAPER_SETTINGS[name]])
@torch.no_grad()
def test_presets_run(name):
    model, inputs = shaped_like_7b()
    smallest = min(paper_settings(name, "llava-1.5-7b"))
    method = paper(name, model="llava-1.5-7b", tokens=smallest)
    with method(model) as record:
        assert model(**inputs).logits.isfinite().all()
    if paper_settings(name, "llava-1.5-7b")[smallest].counted != "by the image":
        assert record.visual_tokens == [method.visual_tokens_per_layer(NUM_VISUAL, 32)]
