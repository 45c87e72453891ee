import math
import pickle

import pytest
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    Qwen2_5_VLConfig,
    Qwen2VLConfig,
    SiglipVisionConfig,
)

import pruning
from pruning.choosing.budget import InfeasibleBudget, mean_visual_tokens
from pruning.models.families import family_of
from pruning.models.sizes import Sizes
from pruning.registry import floor, solve
from tests.tiny_models import FAMILIES

LLAVA_7B = {"num_visual": 576, "num_layers": 32}
LLAVA_13B = {"num_visual": 576, "num_layers": 40}
TESTBED = {"num_visual": 144, "num_layers": 8}


def measured(method: pruning.Method, sizes: dict[str, int]) -> float:
    return mean_visual_tokens(method.visual_tokens_per_layer(sizes["num_visual"], sizes["num_layers"]))


def test_mean_visual_tokens_counts_every_layer_input():
    assert mean_visual_tokens([576, 576, 100, 100]) == 338
    with pytest.raises(ValueError, match="empty"):
        mean_visual_tokens([])


# Tokens kept after layer K, as published for these budgets.
@pytest.mark.parametrize(
    ("sizes", "k", "budget", "tokens_kept"),
    [
        (LLAVA_7B, 2, 192, 166),
        (LLAVA_7B, 2, 128, 98),
        (LLAVA_7B, 2, 64, 30),
        (LLAVA_7B, 3, 192, 152),
        (LLAVA_7B, 3, 128, 82),
        (LLAVA_7B, 3, 64, 11),
        (LLAVA_13B, 2, 192, 172),
        (LLAVA_13B, 2, 128, 104),
        (LLAVA_13B, 2, 64, 37),
    ],
)
@pytest.mark.parametrize("rounding", ["round", "int"])
def test_fastv_keeps_what_its_budget_leaves_after_the_first_layers(sizes, k, budget, tokens_kept, rounding):
    method = solve("fastv", budget, **sizes, k=k, rounding=rounding)
    per_layer = method.visual_tokens_per_layer(**sizes)
    assert per_layer == [576] * k + [tokens_kept] * (sizes["num_layers"] - k)
    assert mean_visual_tokens(per_layer) == pytest.approx(budget, abs=0.5)


@pytest.mark.parametrize(
    ("step", "budget", "r"), [(10, 192, 0.804), (10, 128, 0.966), (25, 192, 0.726), (25, 128, 0.862), (25, 64, 0.988)]
)
def test_sequential_prune_reaches_a_budget_by_its_final_fraction(step, budget, r):
    method = solve("sequential_prune", budget, **LLAVA_7B, k=2, step=step)
    assert method.r == pytest.approx(r, abs=1e-9)
    assert measured(method, LLAVA_7B) == pytest.approx(budget, abs=0.5)


def test_sequential_prune_reports_its_floor_instead_of_a_budget_below():
    with pytest.raises(InfeasibleBudget, match=r"116\.9") as caught:
        solve("sequential_prune", 64, **LLAVA_7B, k=2, step=10)
    assert caught.value.floor == pytest.approx(116.875)
    assert floor("sequential_prune", **LLAVA_7B, k=2, step=10) == caught.value.floor


def test_an_infeasible_budget_travels_between_processes():
    with pytest.raises(InfeasibleBudget) as caught:
        solve("fastv", 20, **LLAVA_7B, k=2)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.floor, copy.nearest) == (str(caught.value), 36, 36)


def test_sequential_prune_reports_a_budget_above_its_weakest_setting():
    # Removing one step of 10 % before layer 2 leaves a mean of 521.6; nothing weaker prunes at all.
    with pytest.raises(InfeasibleBudget, match=r"nearest is 521\.6"):
        solve("sequential_prune", 570, **LLAVA_7B, k=2, step=10)


@pytest.mark.parametrize(
    ("sizes", "r", "mean"), [(LLAVA_7B, 0.9, 154.3), (LLAVA_7B, 0.5, 323.9), (LLAVA_13B, 0.75, 200.1)]
)
def test_sequential_prune_means_by_formula(sizes, r, mean):
    assert measured(pruning.make("sequential_prune", k=2, r=r, step=10), sizes) == pytest.approx(mean, abs=0.05)


def test_fastv_on_the_testbed_cannot_go_below_its_unpruned_layers():
    # Two of eight layers see all 144 tokens: a quarter remains however few are kept afterwards.
    assert floor("fastv", **TESTBED, k=2) == pytest.approx(36, abs=1)
    with pytest.raises(InfeasibleBudget, match="fastv"):
        solve("fastv", "11.1%", **TESTBED, k=2)
    assert measured(solve("fastv", "33.3%", **TESTBED, k=2), TESTBED) == pytest.approx(48, abs=0.5)


@pytest.mark.parametrize("share", ["75%", "50%", "33.3%", "22.2%", "11.1%", "5.6%"])
@pytest.mark.parametrize("sizes", [LLAVA_7B, LLAVA_13B, TESTBED, {"num_visual": 2880, "num_layers": 32}])
@pytest.mark.parametrize("name", ["vispruner", "random", "grid", "fastv", "sequential_prune"])
def test_a_solved_method_measures_what_was_asked_or_says_that_it_cannot(name, sizes, share):
    budget = float(share[:-1]) / 100 * sizes["num_visual"]
    try:
        method = solve(name, share, **sizes)
    except InfeasibleBudget as error:
        assert budget < error.floor
        assert error.floor == floor(name, **sizes)
    else:
        assert measured(method, sizes) == pytest.approx(budget, abs=0.51)
        assert budget >= floor(name, **sizes)


@pytest.mark.parametrize("name", ["vispruner", "random", "grid"])
def test_methods_before_the_language_model_keep_the_budget_itself(name):
    assert solve(name, 64, **LLAVA_7B).keep == 64
    assert solve(name, "11.1%", **LLAVA_7B).keep == 64
    assert solve(name, 576, **LLAVA_7B).keep == 576
    assert floor(name, **LLAVA_7B) == 1


def test_the_other_parameters_stay_as_given():
    assert solve("vispruner", 64, **LLAVA_7B, important_ratio=0.25).important_ratio == 0.25
    assert solve("fastv", 192, **LLAVA_7B, k=3, rounding="int").rounding == "int"


def test_the_full_model_has_one_budget():
    assert measured(solve("full", 576, **LLAVA_7B), LLAVA_7B) == 576
    with pytest.raises(InfeasibleBudget) as caught:
        solve("full", 64, **LLAVA_7B)
    assert caught.value.floor == 576


def test_a_floor_can_be_solved_for():
    for name, fixed in [("fastv", {"k": 2}), ("sequential_prune", {"k": 2, "step": 10}), ("vispruner", {})]:
        lowest = floor(name, **LLAVA_7B, **fixed)
        assert measured(solve(name, lowest, **LLAVA_7B, **fixed), LLAVA_7B) == pytest.approx(lowest)
        with pytest.raises(InfeasibleBudget):
            solve(name, lowest - 0.9, **LLAVA_7B, **fixed)


@pytest.mark.parametrize("budget", [0, -1, math.nan, math.inf, 577, "120%", "0%", "many", "11.1 percent", None, [64]])
def test_a_budget_that_means_nothing_is_refused(budget):
    with pytest.raises(ValueError, match="budget") as caught:
        solve("vispruner", budget, **LLAVA_7B)
    assert not isinstance(caught.value, InfeasibleBudget)


def test_wrong_names_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="vispruner"):
        solve("visprunner", 64, **LLAVA_7B)
    with pytest.raises(ValueError, match="important_ratio"):
        solve("vispruner", 64, **LLAVA_7B, importance=0.5)
    with pytest.raises(ValueError, match="keep"):
        solve("vispruner", 64, **LLAVA_7B, keep=32)


def test_a_first_layer_beyond_the_last_is_refused_in_the_methods_own_words():
    with pytest.raises(ValueError, match="40"):
        solve("fastv", 64, **LLAVA_7B, k=40)


def test_sizes_of_llava():
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=1024, num_attention_heads=16, num_hidden_layers=24, image_size=336),
        text_config=LlamaConfig(hidden_size=4096, num_attention_heads=32, num_key_value_heads=8, num_hidden_layers=32),
    )
    config.vision_config.patch_size = 14
    sizes = Sizes.of(config, visual_tokens=576, text_tokens=40)
    assert sizes == Sizes(
        visual_tokens=576,
        text_tokens=40,
        vision_tokens=577,
        vision_width=1024,
        vision_heads=16,
        vision_layers=24,
        observed_layers=23,
        has_cls=True,
        projects_alone=True,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=11008,
        layers=32,
    )
    assert Sizes.of(config, visual_tokens=2 * 576, text_tokens=40).vision_tokens == 2 * 577
    assert Sizes.of(config, visual_tokens=0, text_tokens=40).vision_tokens == 0


def test_sizes_of_qwen_count_patches_before_the_merger():
    for config in (Qwen2VLConfig(), Qwen2_5_VLConfig()):
        sizes = Sizes.of(config, visual_tokens=100, text_tokens=10)
        assert sizes.vision_tokens == 400
        assert sizes.vision_layers == 32
        assert sizes.vision_heads == 16
        assert (sizes.hidden, sizes.heads, sizes.kv_heads, sizes.head_dim) == (8192, 64, 8, 128)
    assert Sizes.of(Qwen2VLConfig(), visual_tokens=100, text_tokens=10).vision_width == 1280


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_know_the_observed_layer_of_every_family(family):
    model, _ = FAMILIES[family]((1,))
    sizes = Sizes.of(model.config, visual_tokens=36, text_tokens=10, vision_tokens=40)
    assert sizes.observed_layers == family_of(model).vision_layer + 1
    assert sizes.has_cls == sizes.projects_alone == family.startswith("llava")


def test_sizes_of_a_tower_without_cls():
    config = LlavaConfig(vision_config=SiglipVisionConfig(image_size=224, patch_size=16), text_config=LlamaConfig())
    config.vision_feature_select_strategy = "full"
    sizes = Sizes.of(config, visual_tokens=2 * 196, text_tokens=10)
    assert sizes.vision_tokens == 2 * 196 and not sizes.has_cls and sizes.projects_alone
    config.vision_feature_select_strategy = "default"  # the first patch is taken off
    assert Sizes.of(config, visual_tokens=2 * 195, text_tokens=10).vision_tokens == 2 * 196


def test_sizes_of_llava_next_need_the_number_of_crops():
    with pytest.raises(ValueError, match="vision_tokens"):
        Sizes.of(LlavaNextConfig(), visual_tokens=2928, text_tokens=10)
    assert Sizes.of(LlavaNextConfig(), visual_tokens=2928, text_tokens=10, vision_tokens=5 * 577).vision_tokens == 2885


def test_sizes_of_a_text_model_are_refused():
    with pytest.raises(TypeError, match="LlamaConfig"):
        Sizes.of(LlamaConfig(), visual_tokens=0, text_tokens=10)
