"""LLaVA-PruMerge: outliers of [CLS] attention stay and take in the tokens most like them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks, costs
from pruning.choosing.base import BeforeLLM
from pruning.choosing.merging import in_prompt, similarity, wide
from pruning.choosing.selection import rank
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.engine.tokens import upload
from pruning.models.sizes import Sizes


@dataclass
class PruMerge(BeforeLLM):
    """Shang et al., arXiv 2403.15388, section 3.

    Tokens are ranked by the attention of [CLS] in the last vision layer, taken as one head of the entire width. The
    paper keeps those above the third quartile plus 1.5 interquartile ranges, so that the image decides how many; a
    fixed number can be asked for instead. Every kept token adds its `neighbours` most similar others (cosine of the
    layer's keys), each times its attention; one extra token at the end is the sum of all that is not kept, weighted
    alike. Tokens enter by falling attention; positions are re-packed.

    Unlike the authors' code it takes batches, and images without an outlier (the highest token then stays). In Qwen's
    towers the mean attention received stands in for that of [CLS], the projected tokens are merged, and every token
    enters at its own position, the extra one at that of the highest dropped token.

    Parameters:
        keep: tokens of every image, the extra one included; at least 2.
        ratio: the authors' parameter instead: int(N * ratio) tokens and the extra one. Neither: adaptive.
        neighbours: tokens that each kept one adds.
    """

    name: ClassVar[str] = "prumerge"
    label: ClassVar[str] = "PruMerge"
    budget_parameter: ClassVar[str | None] = "keep"

    keep: int | None = None
    ratio: float | None = None
    neighbours: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and self.ratio is not None:
            raise ValueError("keep and ratio both say how many tokens stay: give one of them, or none to adapt")
        if self.keep is not None:
            checks.whole_number("keep", self.keep, minimum=2)
        if self.ratio is not None:
            checks.fraction("ratio", self.ratio, zero=False)
        checks.whole_number("neighbours", self.neighbours, minimum=1)

    @property
    def adaptive(self) -> bool:
        return self.keep is None and self.ratio is None

    def count(self, num_visual: int) -> int | None:
        if self.adaptive:
            return None
        important, sampled = self.plan(num_visual)
        count = important + len(sampled) + 1
        if important < 1 or count > num_visual:
            raise ValueError(f"{count} tokens do not fit the {num_visual} of an image: change keep or ratio")
        return count

    def plan(self, num_visual: int) -> tuple[int, Sequence[int]]:
        """Not adaptive: how many tokens are kept by their rank, and which by their place."""
        return (int(num_visual * self.ratio) if self.ratio is not None else (self.keep or 0) - 1), ()

    def sample(self, share_B1: Tensor, num_visual: int) -> Tensor:
        """Adaptive: which tokens are kept by their place, bool `[B, N]`, given the share of outliers."""
        return torch.zeros(len(share_B1), num_visual, dtype=torch.bool, device=share_B1.device)

    def select(self, seen: Observed) -> MergedTokens:
        attention_BN = seen.wide_attention_BN
        order_BN, counts_B1 = self.order(attention_BN)
        if self.adaptive:
            kept = counts_B1[:, 0].tolist()
        else:
            kept = [(self.count(seen.num_visual) or 0) - 1] * seen.num_images
        most = max(kept)
        tokens_BTC, members_BTN = merge_neighbours(
            seen.mergeable_BNC, seen.wide_keys_BNC, attention_BN, order_BN[:, :most], counts_B1, self.neighbours
        )
        counts = [min(count + 1, seen.num_visual) for count in kept]  # where nothing is dropped nothing is left over
        extra_B1 = order_BN.gather(1, counts_B1.clamp(max=seen.num_visual - 1))
        behind_BT = torch.arange(most + 1, device=seen.device) >= counts_B1
        kept_BT = torch.cat([order_BN[:, :most], extra_B1], dim=1)
        merged = in_prompt(
            seen,
            seen.project(tokens_BTC)[:, : max(counts)],
            torch.where(behind_BT, extra_B1, kept_BT)[:, : max(counts)],
            kept_BT.masked_fill(behind_BT, -1)[:, : max(counts)],
            members_BTN[:, : max(counts)],
            counts if self.adaptive else None,
        )
        return merged

    def order(self, attention_BN: Tensor) -> tuple[Tensor, Tensor]:
        """The kept tokens in the order in which they enter, int64.

        Returns:
            All tokens `[B, N]`, the kept ones first and behind them the others by falling attention, and how many of
            them are kept `[B, 1]`.
        """
        count = attention_BN.shape[1]
        place_N = torch.arange(count, device=attention_BN.device)
        if self.adaptive:
            share_B1 = _outliers(attention_BN).double() / count
            important_B1 = (count * share_B1).long().clamp(min=1)  # in the order of operations of the authors' code
            ranks_BN = _ranks(attention_BN)
            sampled_BN = self.sample(share_B1, count) & (ranks_BN >= important_B1)
        else:
            important, sampled = self.plan(count)
            important_B1 = torch.full_like(attention_BN[:, :1], important, dtype=torch.long)
            sampled_N = torch.zeros_like(place_N, dtype=torch.bool).scatter(0, upload(sampled, place_N.device), True)
            sampled_BN = sampled_N.expand_as(attention_BN)
            # Ranked among the others, so that no token is taken twice and the number is the same for every image.
            ranks_BN = _ranks(attention_BN.masked_fill(sampled_BN, float("-inf")))
        key_BN = torch.where(ranks_BN < important_B1, ranks_BN, 2 * count + ranks_BN)
        key_BN = torch.where(sampled_BN, count + place_N, key_BN)
        return key_BN.argsort(dim=1, stable=True), important_B1 + sampled_BN.sum(dim=1, keepdim=True)

    def choosing_flops(self, sizes: Sizes) -> int:
        tokens, width = sizes.visual_tokens, costs.mergeable_width(sizes)
        kept = self.count(tokens)
        if kept is None:
            raise ValueError(f"{self.name} decides by the image how many tokens stay: there is no formula")
        comparing, averaging = 2 * (kept - 1) * tokens * sizes.vision_width, 2 * kept * tokens * width
        return costs.attention(sizes) + comparing + averaging + costs.projection(sizes, kept)


def merge_neighbours(
    features_BNC: Tensor, keys_BNE: Tensor, attention_BN: Tensor, kept_BK: Tensor, counts_B1: Tensor, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Add to every kept token its neighbours times their attention, and one token of all that is not kept.

    Args:
        features_BNC: what is summed.
        keys_BNE: what is compared, by cosine.
        attention_BN: the weights.
        kept_BK: int64, kept tokens.
        counts_B1: int64, how many of them are.
        neighbours: tokens to add, of all but the token itself.

    Returns:
        `[B, K + 1, C]` in at least float32: the kept tokens in order, then copies of the extra one; and what each is
        made of, bool `[B, K + 1, N]`.
    """
    count, most = features_BNC.shape[1], kept_BK.shape[1]
    keys_BKE = torch.take_along_dim(keys_BNE, kept_BK[..., None], dim=1)
    alike_BKN = similarity(keys_BKE, keys_BNE).scatter(2, kept_BK[..., None], float("-inf"))
    nearest_BKJ = rank(alike_BKN)[..., : min(neighbours, count - 1)]
    features_BNC, attention_BN = wide(features_BNC), wide(attention_BN).to(wide(features_BNC).dtype)
    near_BKN = torch.zeros_like(alike_BKN, dtype=torch.bool).scatter(2, nearest_BKJ, True)
    weights_BKN = (near_BKN * attention_BN[:, None]).scatter(2, kept_BK[..., None], 1.0)
    valid_BK = torch.arange(most, device=kept_BK.device) < counts_B1
    kept_BN = torch.zeros_like(attention_BN).scatter_reduce(1, kept_BK, valid_BK.to(attention_BN.dtype), "amax")
    extra_B1N = (attention_BN * (1 - kept_BN))[:, None]
    weights_BKN = torch.where(valid_BK[..., None], weights_BKN, extra_B1N)
    dropped_B1N = kept_BN[:, None] == 0
    members_BKN = torch.where(valid_BK[..., None], near_BKN.scatter(2, kept_BK[..., None], True), dropped_B1N)
    members_BTN = torch.cat([members_BKN, dropped_B1N], dim=1)
    return torch.cat([weights_BKN, extra_B1N], dim=1) @ features_BNC, members_BTN


def _outliers(attention_BN: Tensor) -> Tensor:
    """Tokens to keep of every image, int64 `[B, 1]`: those above the third quartile by 1.5 interquartile ranges."""
    attention_BN = attention_BN.float()
    low_B1, high_B1 = (attention_BN.quantile(share, dim=1, keepdim=True) for share in (0.25, 0.75))
    outliers_B1 = (attention_BN > high_B1 + 1.5 * (high_B1 - low_B1)).sum(dim=1, keepdim=True)
    return outliers_B1.clamp(min=1)


def _ranks(values_BN: Tensor) -> Tensor:
    """Place of every value in its row, descending, equal ones by index."""
    return rank(values_BN).argsort(dim=1)
