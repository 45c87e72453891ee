"""PruneSID: groups of patches by principal components, the salient and different ones of each."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from pruning.choosing import checks, costs
from pruning.choosing.base import KeepPerImage
from pruning.choosing.merging import in_prompt, pick_rows, wide
from pruning.choosing.quotas import hand_on
from pruning.choosing.selection import by_groups, cosine_similarity, rank
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

TOKENS_A_GROUP = 4
TOKENS_A_STEP = 32  # the threshold of similarity is keep over this, times the mean
MOST_A_GROUP, PER = 5, 64  # members a group at first, for every so many tokens
POWER_ITERATIONS = 2


@dataclass
class PruneSID(KeepPerImage):
    """Fang et al., arXiv 2603.09480: principal semantic components, then suppression inside each.

    The patches are grouped by the principal component (of the sigmoid of their features, over channels) that weighs
    them most, keep/4 of them. In a group the patches by falling attention of [CLS] (sum over heads) drop those after
    them whose cosine exceeds keep/32 times the mean over all pairs; the dropped ones follow by attention. Each group
    gives about in proportion to the number of survivors. [CLS] stays in front, counted in `keep`, then come the groups
    one after the other, as in the authors' code; positions are re-packed. Features and attention are those of the
    vision layer whose features the language model gets.

    The authors' decomposition draws at random without a seed, so that two calls on one image differ: the exact one is
    the default. Either reads the solver's status back from the device. With their threshold little is suppressed from
    64 tokens on.

    A tower without [CLS] has `keep` patches, ranked by the mean attention received. With mRoPE every token stays at its
    place, in raster order; the authors' own constants for Qwen2-VL are not used.

    Parameters:
        keep: tokens of every image.
        pca: "exact" or "random" (the authors' way of computing it: random projections, two power iterations).
        seed: of the random projections, 0 or above.
    """

    name: ClassVar[str] = "prunesid"
    label: ClassVar[str] = "PruneSID"

    pca: str = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("pca", self.pca, ("exact", "random"))
        checks.whole_number("seed", self.seed)

    def select(self, seen: Observed) -> MergedTokens:
        cls_BC = seen.cls_features_BC
        if cls_BC is not None and not seen.repacks:
            raise ValueError("prunesid keeps [CLS], which has no place in the image: leave out positions='original'")
        index_BK = self.choose(seen)
        tokens, places = pick_rows(seen.projected_BND, index_BK), index_BK
        members_BTN = index_BK[..., None] == torch.arange(seen.num_visual, device=seen.device)
        if cls_BC is not None:
            tokens = torch.cat([seen.project(cls_BC[:, None]), tokens], dim=1)
            places, members_BTN = pad(places, (1, 0), value=-1), pad(members_BTN, (0, 0, 1, 0))
        return in_prompt(seen, tokens, places, places, members_BTN)

    def choose(self, seen: Observed) -> Tensor:
        """The patches in the order in which they enter, int64 `[B, K]`: one fewer than `keep` where [CLS] stays."""
        self.count(seen.num_visual)
        patches = self.keep - (seen.cls_features_BC is not None)
        groups = min(max(self.keep // TOKENS_A_GROUP, 1), *seen.features_BNC.shape[1:])

        def pick(features_BNC: Tensor, saliency_BN: Tensor) -> Tensor:
            group_BN = self._groups(features_BNC, groups)
            return chosen_of_groups(features_BNC, saliency_BN, group_BN, groups, self.keep, patches)

        return by_groups(pick, seen.num_visual**2, seen.features_BNC, seen.cls_attention_BHN.sum(dim=1))

    def _groups(self, features_BNC: Tensor, groups: int) -> Tensor:
        """The principal component of every patch, int64 `[B, N]`."""
        squashed_BCN = wide(features_BNC).sigmoid().mT
        squashed_BCN = squashed_BCN - squashed_BCN.mean(dim=1, keepdim=True)
        if self.pca == "exact":
            components_BQN = torch.linalg.svd(squashed_BCN, full_matrices=False).Vh[:, :groups]
        else:
            components_BQN = self._by_projections(squashed_BCN, groups)
        return components_BQN.abs().argmax(dim=1)

    def _by_projections(self, matrix_BCN: Tensor, groups: int) -> Tensor:
        """The first right singular vectors `[B, Q, N]` from a random range (Halko et al. 2009, algorithm 5.1)."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn_NQ = torch.randn(matrix_BCN.shape[2], groups, generator=generator, dtype=matrix_BCN.dtype)
        range_BCQ = torch.linalg.qr(matrix_BCN @ drawn_NQ.to(matrix_BCN.device)).Q
        for _ in range(POWER_ITERATIONS):
            back_BNQ = torch.linalg.qr(matrix_BCN.mT @ range_BCQ).Q
            range_BCQ = torch.linalg.qr(matrix_BCN @ back_BNQ).Q
        return torch.linalg.svd(range_BCQ.mT @ matrix_BCN, full_matrices=False).Vh

    def choosing_flops(self, sizes: Sizes) -> int:
        count, width = sizes.visual_tokens, sizes.vision_width
        flops = costs.attention(sizes) + 2 * count**2 * width + costs.projection(sizes, int(sizes.has_cls))
        if self.pca == "random":  # products with the matrix: to begin with, two for each iteration, and at last
            groups = min(max(self.keep // TOKENS_A_GROUP, 1), count, width)
            flops += (2 + 2 * POWER_ITERATIONS) * 2 * count * width * groups
        return flops


def chosen_of_groups(
    features_BNC: Tensor, saliency_BN: Tensor, group_BN: Tensor, groups: int, keep: int, patches: int
) -> Tensor:
    """What each group gives, group after group: int64 `[B, patches]`.

    Args:
        features_BNC: compared by cosine.
        saliency_BN: the order in a group.
        group_BN: int64, the group of every patch.
        groups: how many there are.
        keep: tokens that the shares are made for.
        patches: tokens to give; `keep`, or one fewer where another token counts among them.
    """
    order_BN = rank(saliency_BN)
    group_BN = group_BN.gather(1, order_BN)
    similarity_BNN = cosine_similarity(features_BNC)
    count = saliency_BN.shape[1]
    pairs = max(1, count * (count - 1) // 2)
    threshold_B1 = similarity_BNN.triu(diagonal=1).sum(dim=(1, 2))[:, None] / pairs * (keep / TOKENS_A_STEP)
    rows_B11 = torch.arange(len(order_BN), device=order_BN.device)[:, None, None]
    alike_BNN = similarity_BNN[rows_B11, order_BN[:, :, None], order_BN[:, None]] > threshold_B1[..., None]
    survives_BN = suppressed(alike_BNN & (group_BN[:, :, None] == group_BN[:, None])).logical_not()

    members_BNQ = one_hot(group_BN, groups)
    sizes_BQ = members_BNQ.sum(dim=1)
    survivors_BQ = (members_BNQ * survives_BN[..., None]).sum(dim=1)
    given_BQ = shares(sizes_BQ, survivors_BQ, keep, patches)

    # Group by group, its survivors and then the others, both by falling saliency.
    key_BN = group_BN * 2 + ~survives_BN
    behind_BN = key_BN.argsort(dim=1, stable=True)
    first_BQ = sizes_BQ.cumsum(dim=1) - sizes_BQ
    group_BN = group_BN.gather(1, behind_BN)
    place_BN = torch.arange(count, device=group_BN.device) - first_BQ.gather(1, group_BN)
    left_BN = place_BN >= given_BQ.gather(1, group_BN)
    taken_BK = left_BN.to(torch.uint8).argsort(dim=1, stable=True)[:, :patches]
    return order_BN.gather(1, behind_BN.gather(1, taken_BK))


def suppressed(drops_BNN: Tensor) -> Tensor:
    """Greedy suppression, one token after the other: what one that stays drops is gone, bool `[B, N]`.

    Args:
        drops_BNN: bool, row i: which tokens token i drops, if it stays itself; only those after it count.
    """
    drops_BNN = drops_BNN.triu(diagonal=1)
    gone_BN = torch.zeros_like(drops_BNN[:, 0])
    for token in range(drops_BNN.shape[1] - 1):
        gone_BN = gone_BN | (drops_BNN[:, token] & ~gone_BN[:, token, None])
    return gone_BN


def shares(sizes_BQ: Tensor, survivors_BQ: Tensor, keep: int, patches: int) -> Tensor:
    """Patches that every group gives, int64 `[B, Q]`, `patches` together."""
    least_BQ = sizes_BQ.clamp(max=1)
    most_BQ = sizes_BQ.clamp(max=MOST_A_GROUP * -(-keep // PER)).minimum(survivors_BQ)
    # One more for every group until there is enough for all tokens.
    raised_S = torch.arange(keep + 1, device=sizes_BQ.device)
    raised_BSQ = (most_BQ[:, None] + raised_S[:, None]).minimum(sizes_BQ[:, None])
    step_B1 = (raised_BSQ.sum(dim=2) < keep).sum(dim=1, keepdim=True).clamp(max=len(raised_S) - 1)
    most_BQ = raised_BSQ.gather(1, step_B1[..., None].expand(-1, -1, sizes_BQ.shape[1]))[:, 0]

    rest_B1 = (patches - least_BQ.sum(dim=1, keepdim=True)).clamp(min=0)
    share_BQ = survivors_BQ.double() / survivors_BQ.sum(dim=1, keepdim=True)
    up_to_BQ = (share_BQ.cumsum(dim=1) * rest_B1).round().long()
    return hand_on(pad(up_to_BQ, (1, 0)).diff(dim=1) + least_BQ, survivors_BQ, most_BQ, patches)
