"""What the golden cases of SCOPE, HoloV, MMTok, PruneSID, HiPrune and VScan leave open: own variants, refusals."""

import pytest
import torch

import pruning
from experiments.conformance.vision import Given
from pruning.choosing.coverage import greedy_coverage
from pruning.choosing.quotas import hand_on
from pruning.methods.hiprune import HiPrune, by_number, in_raster
from pruning.methods.holov import HoloV
from pruning.methods.mmtok import keywords
from pruning.methods.prunesid import PruneSID, shares, suppressed
from pruning.methods.vscan import TwoScans, Windows, join
from tests.tiny_models import FAMILIES, LAYERS, tiny_llava

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def test_coverage_is_the_gain_over_what_is_covered():
    # Token 0 covers targets 0 and 1 best; then 2, which covers the third, not 1, which repeats the first.
    reach = torch.tensor([[[0.9, 0.8, 0.0], [0.9, 0.8, 0.1], [0.0, 0.1, 0.5]]])
    assert greedy_coverage(reach, 3).tolist() == [[0, 2, 1]]
    assert greedy_coverage(reach, 2, worth_BN=torch.tensor([[0.1, 1.0, 1.0]])).tolist() == [[1, 2]]
    assert greedy_coverage(reach, 2, barred_BN=torch.tensor([[True, False, False]])).tolist() == [[1, 2]]
    assert greedy_coverage(torch.zeros(1, 3, 3), 2).tolist() == [[0, 1]], "equal gains by index, no token twice"
    with pytest.raises(ValueError, match="cannot pick 4 of 3"):
        greedy_coverage(reach, 4)


def test_scope_by_coverage_alone_does_not_look_at_the_attention():
    seen = Given(20, cls_attention_BHN=random(1, 2, 20), features_BNC=random(1, 20, 6, seed=1) - 0.5)
    other = Given(20, cls_attention_BHN=random(1, 2, 20, seed=2), features_BNC=seen.features_BNC)
    by_coverage, by_both = pruning.make("scope", keep=6, alpha=0), pruning.make("scope", keep=6)
    assert by_coverage.select(seen).tolist() == by_coverage.select(other).tolist()
    assert by_both.select(seen).tolist() != by_both.select(other).tolist()


def peaked() -> Given:
    """12 tokens whose attention lies in the first of three runs."""
    attention = random(1, 1, 12) * 0.01
    attention[..., :4] += 1
    return Given(12, cls_attention_BHN=attention, projected_BND=random(1, 12, 5, seed=1) - 0.5)


def test_what_a_quota_exceeds_its_crop_by_goes_to_others_or_is_padded_with_zeros():
    shared = HoloV(keep=6, crops=3).select(peaked())
    assert shared.shape == (1, 6) and set(range(4)) <= set(shared[0].tolist())
    zeros = HoloV(keep=6, crops=3, overflow="zeros").select(peaked())
    assert zeros.numbers_BT.tolist() == [[0, 1, 2, 3, -1, -1]]
    assert (zeros.tokens_BTD[0, 4:] == 0).all() and not zeros.members_BTN[0, 4:].any()
    with pytest.raises(ValueError, match="positions numbered anew"):
        seen = peaked()
        seen.__dict__["repacks"] = False
        HoloV(keep=6, crops=3, overflow="zeros").select(seen)
    sizes, weights = torch.tensor([4, 4, 4]), torch.tensor([[0.5, 0.2, 0.3]])
    assert hand_on(torch.tensor([[9, 1, 0]]), weights, sizes, 10).tolist() == [[4, 2, 4]]


def test_the_feature_term_of_holov_only_counts_where_the_paper_has_it():
    attention, projected = random(1, 2, 48), random(1, 48, 5, seed=1) - 0.5

    def kept(**parameters) -> list:
        method = HoloV(keep=16, crops=4, **parameters)
        return method.select(Given(48, cls_attention_BHN=attention, projected_BND=projected)).tolist()

    assert kept(beta=0.0) == kept(beta=5.0)
    assert kept(score="crop", beta=0.0) == kept() != kept(score="crop", beta=5.0)


def test_words_are_those_that_say_something():
    assert keywords("What color is the dot? Answer the question using a single word or phrase.") == "color dot"
    assert keywords("Who are you") == "Who are you"


@torch.no_grad()
def test_mmtok_never_picks_padding_and_depends_on_the_text_behind_the_image():
    model, inputs = tiny_llava((1,))
    with pruning.make("mmtok", keep=6, alpha=0.0)(model) as record:
        model(**inputs)
        kept = record.kept[0][0].tolist()
        inputs["input_ids"][0, -3:] = torch.tensor([5, 6, 7])
        model(**inputs)
        assert record.kept[0][0].tolist() != kept
        again = record.kept[0][0].tolist()
    with pruning.make("mmtok", keep=6, alpha=0.0, padding=[again[:3]])(model) as record:
        model(**inputs)
    assert not set(record.kept[0][0].tolist()) & set(again[:3])
    with (
        pytest.raises(ValueError, match="above the 5 visual tokens outside the padding"),
        pruning.make("mmtok", keep=6, padding=[list(range(31))])(model),
    ):
        model(**inputs)


def test_what_stays_drops_what_follows_and_what_is_gone_drops_nothing():
    drops = torch.zeros(1, 4, 4, dtype=torch.bool)
    drops[0, 0, 1] = drops[0, 1, 2] = drops[0, 2, 3] = True
    assert suppressed(drops).tolist() == [[False, True, False, True]]


def test_groups_give_by_their_survivors_up_to_what_they_have():
    sizes, survivors = torch.tensor([[10, 2, 0, 4]]), torch.tensor([[6, 1, 0, 1]])
    given = shares(sizes, survivors, keep=8, patches=7)
    assert given.sum() == 7 and (given <= sizes).all() and given[0, 2] == 0 and given[0, 0] > given[0, 3]
    assert shares(sizes, survivors, keep=16, patches=16).tolist() == sizes.tolist()


def test_prunesid_draws_by_its_seed_alone():
    seen = Given(
        36, cls_attention_BHN=random(2, 2, 36), cls_features_BC=random(2, 16), features_BNC=random(2, 36, 16) - 0.5
    )

    def chosen(**parameters) -> list:
        return PruneSID(keep=12, **parameters).choose(seen).tolist()

    assert all(len(set(row)) == 11 for row in chosen())
    assert chosen(pca="random", seed=1) == chosen(pca="random", seed=1)
    assert chosen() == chosen(seed=1), "the exact one draws nothing"
    first = Given(
        36, cls_attention_BHN=random(2, 2, 36)[1:], cls_features_BC=random(2, 16)[1:],
        features_BNC=(random(2, 36, 16) - 0.5)[1:],
    )  # fmt: skip
    assert PruneSID(keep=12, pca="random").choose(first).tolist() == chosen(pca="random")[1:]


def test_neighbours_are_those_of_the_image():
    corner, edge = torch.tensor([[0]]), torch.tensor([[11]])
    assert sorted(in_raster(corner, (1, 6, 6))[0].tolist()) == [0, 1, 6, 36, 36]
    assert sorted(by_number(corner, 6, 36)[0].tolist()) == [0, 0, 0, 1, 6]
    assert sorted(in_raster(edge, (1, 6, 6))[0].tolist()) == [5, 10, 11, 17, 36]
    assert sorted(by_number(edge, 6, 36)[0].tolist()) == [5, 10, 11, 12, 17]
    assert sorted(in_raster(torch.tensor([[36]]), (2, 6, 6))[0].tolist()) == [36, 37, 42, 72, 72], "no other frame's"
    middle, deep = torch.zeros(1, 36), random(1, 36)
    middle[0, 11] = 1
    kept = HiPrune(keep=6, alpha=1.0).choose(middle, deep, (1, 6, 6))[0].tolist()
    assert {5, 10, 11, 17} <= set(kept) and len(kept) == 6


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_the_attention_of_further_layers_is_that_of_the_model(family):
    """HiPrune by its observed layer alone ranks by what the observed layer gives."""
    model, inputs = FAMILIES[family]((1,))
    layer = pruning.make("hiprune").attention_blocks(pruning.models.families.family_of(model))[1]
    method, seen = HiPrune(keep=4, object_layer=layer), []
    method.select = lambda images: seen.append(images) or torch.arange(4).expand(images.num_images, -1)
    with method(model):
        model(**inputs)
        middle, deep = seen[0].watched_received
        assert torch.equal(middle, deep)
        if family.startswith("qwen"):
            torch.testing.assert_close(deep, seen[0].cls_attention_BHN)
        else:
            assert deep.shape == seen[0].cls_attention_BHN.shape
        if family == "llava":
            tower = model.model.vision_tower
            tower.set_attn_implementation("eager")
            maps = tower(inputs["pixel_values"], output_attentions=True).attentions[layer]
            tower.set_attn_implementation("sdpa")
            torch.testing.assert_close(deep, maps.mean(dim=2)[..., 1:], atol=1e-6, rtol=0)


def test_windows_share_the_local_half_and_the_global_scan_fills_up():
    local, glob = random(2, 144), random(2, 144, seed=1)
    windows = Windows(6, 1, 12, 12, CPU)
    assert windows.number == 4 and windows.window_N.bincount().tolist() == [36] * 4
    exact = TwoScans(keep=14).by_window(local, glob, windows)  # a half of 7: 1 of each window
    short = TwoScans(keep=14, exact=False).by_window(local, glob, windows)
    assert exact.shape == (2, 14) and short.shape == (2, 11)
    for row in range(2):
        best = {int(local[row].masked_fill(windows.window_N != one, -1).argmax()) for one in range(4)}
        assert best <= set(exact[row].tolist()) and set(short[row].tolist()) < set(exact[row].tolist())
    uneven = Windows(4, 2, 6, 9, CPU)
    assert uneven.number == 2 * 1 * 2 and uneven.window_N.bincount().tolist() == [24, 30, 24, 30]
    assert Windows(6, 1, 1, 50, CPU).number == 1


def test_tokens_join_the_kept_one_they_are_like():
    tokens = torch.tensor([[[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.0, 3.0]]], dtype=torch.double)
    merged, members = join(tokens, torch.tensor([[0, 2]]))
    assert merged[0].tolist() == [[0.95, 0.05], [0.0, 2.0]]
    assert members[0].tolist() == [[True, True, False, False], [False, False, True, True]]


def test_vscan_meets_a_budget_by_what_enters():
    method = pruning.solve("vscan", "22.2%", num_visual=144, num_layers=LAYERS)
    per_layer = method.visual_tokens_per_layer(144, LAYERS)
    assert per_layer == [48, 48, 48, 16, 16, 16]
    with pytest.raises(ValueError, match="nearest is|no setting near"):
        pruning.solve("vscan", "90%", num_visual=144, num_layers=LAYERS)
    with pytest.raises(ValueError, match="no formula"):
        pruning.make("vscan", keep=48, exact=False).visual_tokens_per_layer(144, LAYERS)


def test_a_third_of_every_number_is_what_is_published():
    for keep in range(3, 3000, 3):
        assert pruning.make("vscan", keep=keep).visual_tokens_per_layer(3000, 2) == [keep, keep // 3]


@pytest.mark.parametrize("name", ["hiprune", "vscan"])
@torch.no_grad()
def test_methods_that_look_at_further_layers_encode_images_themselves(name):
    model, inputs = tiny_llava((1,))
    images = pruning.EncodedImages(model, inputs)
    for method in (pruning.make(name, keep=4), pruning.make("sequence", methods=[{"name": "tome"}, {"name": "fastv"}])):
        with pytest.raises(ValueError, match="has to see the vision tower run"), method(model, images):
            pass


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("scope", {"alpha": -1}, "alpha must be"),
        ("holov", {"crops": 0}, "crops must be"),
        ("holov", {"order": "any"}, "order must be one of raster, crops"),
        ("mmtok", {"vision_temperature": 0}, "vision_temperature must be"),
        ("prunesid", {"pca": "none"}, "pca must be one of exact, random"),
        ("hiprune", {"alpha": 2}, "alpha must be"),
        ("vscan", {"keep": 0}, "keep must be"),
        ("vscan", {"share": 1.5}, "share must be"),
        ("vscan", {"layer": 0}, "layer must be"),
    ],
)
def test_bad_parameters(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        pruning.make(name, **parameters)


@torch.no_grad()
def test_a_layer_that_the_tower_does_not_have():
    model, inputs = tiny_llava((1,))
    with (
        pytest.raises(ValueError, match="vision tower has blocks 0..2, not 7"),
        pruning.make("hiprune", keep=4, object_layer=7)(model),
    ):
        model(**inputs)
