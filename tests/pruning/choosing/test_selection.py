import pytest
import torch

from pruning.choosing.selection import (
    cosine_similarity,
    drop_redundant,
    greedy_dpp,
    max_min_diversity,
    rank,
    stable_top_k,
)


def reference_rounds(features: torch.Tensor, ranked: list[int], keep: int) -> list[int]:
    """VisPruner's rounds for one image as the paper words them, one token at a time."""
    unit = (features / features.norm(dim=-1, keepdim=True)).tolist()

    def cosine(i: int, j: int) -> float:
        return sum(x * y for x, y in zip(unit[i], unit[j], strict=True))

    rest = list(ranked)
    while len(rest) > keep:
        even, odd = rest[0::2], rest[1::2]
        dropped = min(8, len(rest) - keep)
        nearest = {i: max(cosine(i, j) for j in odd) for i in even}
        even = sorted(even, key=lambda i: -nearest[i])  # sorted() keeps the order of equals
        rest = even[dropped:] + odd
    return sorted(rest)


def random_features(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_top_k_keeps_the_lower_index_of_equal_scores():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert stable_top_k(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert rank(scores).tolist() == [[1, 2, 4, 0, 3], [0, 1, 2, 3, 4]]


def test_top_k_of_many_equal_scores_is_stable():
    # An unstable sort shows itself only beyond the length where sorting switches algorithm.
    scores = torch.zeros(2, 5000)
    scores[:, 4000] = 1.0
    assert stable_top_k(scores, 100).tolist() == [[*range(99), 4000]] * 2


def test_top_k_returns_ascending_int64_and_takes_all_or_none():
    scores = random_features(3, 10)
    assert stable_top_k(scores, 10).tolist() == [list(range(10))] * 3
    assert stable_top_k(scores, 0).shape == (3, 0)
    assert stable_top_k(scores, 4).dtype == torch.int64


@pytest.mark.parametrize("k", [-1, 11])
def test_top_k_refuses_an_impossible_count(k):
    with pytest.raises(ValueError, match="between 0 and 10"):
        stable_top_k(random_features(3, 10), k)


@pytest.mark.parametrize(
    ("candidates", "keep"), [(32, 16), (33, 16), (27, 10), (14, 6), (14, 7), (9, 1), (10, 2), (2, 1), (3, 2), (5, 5)]
)
def test_drop_redundant_follows_the_paper_for_even_and_odd_counts(candidates, keep):
    features = random_features(2, 40, 6)
    ranked = rank(random_features(2, 40, seed=1))[:, :candidates]
    kept = drop_redundant(features, ranked, keep)
    assert kept.dtype == torch.int64
    assert kept.tolist() == [
        reference_rounds(image, order.tolist(), keep) for image, order in zip(features, ranked, strict=True)
    ]


def test_drop_redundant_drops_the_copy_first():
    features = random_features(1, 16, 8)
    features[0, 6] = features[0, 11]  # 6 stands at an even place of the order, its copy at an odd one
    kept = drop_redundant(features, torch.arange(16)[None], 15)
    assert kept.tolist() == [[i for i in range(16) if i != 6]]


def test_drop_redundant_treats_each_image_on_its_own():
    features, ranked = random_features(4, 60, 8), rank(random_features(4, 60, seed=2))[:, :51]
    together = drop_redundant(features, ranked, 13)
    alone = [drop_redundant(features[b : b + 1], ranked[b : b + 1], 13) for b in range(4)]
    assert torch.equal(together, torch.cat(alone))


def test_drop_redundant_ignores_the_length_of_features():
    features, ranked = random_features(1, 50, 8), rank(random_features(1, 50, seed=3))
    scale = torch.arange(1, 51)[None, :, None]
    assert torch.equal(drop_redundant(features, ranked, 20), drop_redundant(features * scale, ranked, 20))


def test_drop_redundant_compares_half_precision_in_float32():
    features, ranked = random_features(1, 50, 64).bfloat16(), rank(random_features(1, 50, seed=3))
    assert torch.equal(drop_redundant(features, ranked, 20), drop_redundant(features.float(), ranked, 20))


def test_drop_redundant_survives_a_zero_feature():
    features, ranked = random_features(1, 20, 8), torch.arange(20)[None]
    features[0, 4] = 0
    kept = drop_redundant(features, ranked, 10)
    assert len(set(kept[0].tolist())) == 10


@pytest.mark.parametrize("keep", [-1, 21])
def test_drop_redundant_refuses_an_impossible_count(keep):
    with pytest.raises(ValueError, match="between 0 and 20"):
        drop_redundant(random_features(1, 30, 4), torch.arange(20)[None], keep)


def test_drop_redundant_with_nothing_to_keep_is_empty():
    assert drop_redundant(random_features(2, 30, 4), torch.arange(20).expand(2, -1), 0).shape == (2, 0)


def test_max_min_picks_the_token_farthest_from_the_nearest_pick():
    features = random_features(3, 25, 5)
    picks = max_min_diversity(features, 12)
    for image, order in zip(features, picks.tolist(), strict=True):
        distance = 1 - cosine_similarity(image[None])[0]
        others = distance + torch.diag(torch.full((25,), torch.inf))
        assert order[0] == others.min(dim=0).values.argmax()
        for step in range(1, 12):
            rest = [i for i in range(25) if i not in order[:step]]
            assert order[step] == max(rest, key=lambda i: distance[i, order[:step]].min())


def test_greedy_dpp_picks_the_largest_determinant():
    features = random_features(3, 25, 12)
    kernel = features @ features.mT
    picks = greedy_dpp(kernel, 8)
    for image, order in zip(kernel, picks.tolist(), strict=True):
        for step in range(8):
            chosen = order[:step]
            rest = [i for i in range(25) if i not in chosen]
            assert order[step] == max(rest, key=lambda i: image[[*chosen, i]][:, [*chosen, i]].det())


@pytest.mark.parametrize("pick", [max_min_diversity, lambda features, keep: greedy_dpp(features @ features.mT, keep)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_token_is_picked_twice_when_features_repeat(pick, dtype):
    features = random_features(2, 10, 4).to(dtype).repeat(1, 3, 1)
    picks = pick(features, 30)
    assert picks.sort(dim=1).values.tolist() == [list(range(30))] * 2


@pytest.mark.parametrize("keep", [0, 11])
@pytest.mark.parametrize("pick", [max_min_diversity, greedy_dpp])
def test_picking_refuses_an_impossible_count(pick, keep):
    with pytest.raises(ValueError, match="between 1 and 10"):
        pick(torch.eye(10)[None], keep)
