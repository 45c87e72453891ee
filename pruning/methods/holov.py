"""HoloV: every run of tokens gets a share of the tokens, by its attention."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks, costs
from pruning.choosing.base import KeepPerImage
from pruning.choosing.merging import in_prompt, pick_rows, wide
from pruning.choosing.quotas import hand_on
from pruning.choosing.selection import rank
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

EPSILON = 1e-6
ATTENTION_SCALE = 1000
RASTER = 576  # of LLaVA-1.5
CROPS_A_TOKEN = 1024  # crops times tokens kept of those 576


@dataclass
class HoloV(KeepPerImage):
    """Zou et al., arXiv 2510.02912: a quota of tokens for each crop of the image.

    Crops are runs of the raster order. A token's score is its attention of [CLS] plus `beta` times the variance of its
    cosines with the crop's other tokens, scaled to the crop's attention; a crop's weight is the mean of these. The
    quotas go by weight; inside a crop the tokens of the highest attention alone fill it (`score="attention"`).

    As the variances are scaled to the crop's own mean attention before the mean over the crop is taken, `beta` has no
    effect on the quotas, and in the authors' code none on the choice: the quotas are those of the attention in a crop.
    `score="crop"` ranks by the score inside the crop too, as the paper describes it; that is ours.

    Where a quota exceeds a crop, the authors' code loses the surplus and pads the sequence with zero embeddings
    (`overflow="zeros"`, only where positions are numbered anew); by default it goes to the crops of the largest weight
    that have room. Qwen's attention is the mean received, in raster order; the authors' stays in the order of windows.
    A crop of a single token weighs a thousandth of others, as in their code. Positions are re-packed.

    Parameters:
        keep: tokens kept of every image.
        crops: number of runs; None: the authors' for Qwen, int(1024/576 * N / keep) and at least 1, which is the 16 of
            their LLaVA code at 64 of 576 tokens. Runs are nearly equal, the first ones longer by one.
        beta: weight of the variance.
        score: "attention" or "crop".
        overflow: "shared" or "zeros".
        order: "raster"; "crops": as the authors' code has them, crop by crop and in a crop by falling attention
            (a crop that stays whole in raster order). Where positions are kept it is the raster's in either case.
    """

    name: ClassVar[str] = "holov"
    label: ClassVar[str] = "HoloV"

    crops: int | None = None
    beta: float = 0.09
    score: str = "attention"
    overflow: str = "shared"
    order: str = "raster"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crops is not None:
            checks.whole_number("crops", self.crops, minimum=1)
        checks.not_negative("beta", self.beta)
        checks.one_of("score", self.score, ("attention", "crop"))
        checks.one_of("overflow", self.overflow, ("shared", "zeros"))
        checks.one_of("order", self.order, ("raster", "crops"))

    def _crops(self, num_visual: int) -> int:
        crops = max(1, int(CROPS_A_TOKEN / RASTER * num_visual / self.keep)) if self.crops is None else self.crops
        return min(crops, num_visual)

    def select(self, seen: Observed) -> Tensor | MergedTokens:
        index_BK, there_BK = self.choose(seen)
        if self.overflow == "zeros":
            if not seen.repacks:
                raise ValueError("overflow='zeros' adds tokens that have no place: it needs positions numbered anew")
        elif self.order == "raster":
            return index_BK.sort(dim=1).values
        if self.order == "raster":  # what is missing stays behind
            index_BK = (
                index_BK.masked_fill(~there_BK, seen.num_visual).sort(dim=1).values.clamp(max=seen.num_visual - 1)
            )
        tokens_BKD = pick_rows(seen.projected_BND, index_BK) * there_BK[..., None]
        own_BKN = index_BK[..., None] == torch.arange(seen.num_visual, device=seen.device)
        numbers_BK = index_BK.masked_fill(~there_BK, -1)
        return in_prompt(seen, tokens_BKD, index_BK, numbers_BK, own_BKN & there_BK[..., None])

    def choose(self, seen: Observed) -> tuple[Tensor, Tensor]:
        """int64 `[B, keep]` in the order of the authors' output, and bool `[B, keep]`, False for zero embeddings."""
        self.count(seen.num_visual)
        attention_BN = seen.cls_attention_BHN.mean(dim=1)
        crops = Crops(seen.num_visual, self._crops(seen.num_visual), seen.device)
        attention_BGS = crops.split(attention_BN)
        scores_BGS = self._scores(crops, attention_BGS, seen)
        quota_BG = self._quotas(crops.means(scores_BGS))
        if self.overflow == "shared":
            quota_BG = hand_on(quota_BG, crops.means(scores_BGS), crops.sizes_G, self.keep)
        whole_BG = quota_BG >= crops.sizes_G
        ranked_by = attention_BGS if self.score == "attention" else scores_BGS
        place_BGS = rank(ranked_by.masked_fill(~crops.there_GS, float("-inf"))).argsort(dim=2)
        raster_S = torch.arange(place_BGS.shape[2], device=seen.device)
        place_BGS = torch.where(whole_BG[..., None], raster_S, place_BGS)
        kept_BGS = crops.there_GS & (place_BGS < quota_BG[..., None])
        longest = place_BGS.shape[2]
        key_BGS = (torch.arange(len(crops.sizes_G), device=seen.device)[:, None] * longest + place_BGS).flatten(1)
        last = len(crops.sizes_G) * longest
        order_BK = key_BGS.masked_fill(~kept_BGS.flatten(1), last).argsort(dim=1, stable=True)[:, : self.keep]
        index_BK = crops.index_GS.flatten().expand(len(order_BK), -1).gather(1, order_BK)
        return index_BK, kept_BGS.flatten(1).gather(1, order_BK)

    def _scores(self, crops: "Crops", attention_BGS: Tensor, seen: Observed) -> Tensor:
        """Of every token; where a crop has one alone, its attention, unscaled."""
        scaled_BGS = attention_BGS * ATTENTION_SCALE
        if self.beta == 0:
            return torch.where(crops.sizes_G[:, None] > 1, scaled_BGS, attention_BGS)
        spread_BGS = self._spread(crops, seen).to(attention_BGS.dtype)
        scale_BG1 = (crops.means(scaled_BGS.abs()) / (crops.means(spread_BGS.abs()) + EPSILON))[..., None]
        scores_BGS = scaled_BGS + self.beta * spread_BGS * scale_BG1
        return torch.where(crops.sizes_G[:, None] > 1, scores_BGS, attention_BGS)

    def _spread(self, crops: "Crops", seen: Observed) -> Tensor:
        """Variance of every token's cosines with the crop's others, its own 0 among them, `[B, G, S]`."""
        tokens_BND = wide(seen.projected_BND)
        unit_BND = tokens_BND / (tokens_BND.norm(dim=-1, keepdim=True) + EPSILON)
        unit_BGSD = unit_BND[:, crops.index_GS] * crops.there_GS[..., None]
        alike_BGSS = unit_BGSD @ unit_BGSD.mT
        alike_BGSS = alike_BGSS * (1 - torch.eye(alike_BGSS.shape[-1], dtype=alike_BGSS.dtype, device=seen.device))
        others_G1 = (crops.sizes_G - 1).clamp(min=1)[:, None]
        mean_BGS = alike_BGSS.sum(dim=3) / others_G1
        apart_BGSS = (alike_BGSS - mean_BGS[..., None]).square() * crops.there_GS[:, None]
        return apart_BGSS.sum(dim=3) / others_G1 * crops.there_GS

    def _quotas(self, weight_BG: Tensor) -> Tensor:
        """int64 `[B, G]`: shares by weight, rounded down, and one more for the largest as long as any are left."""
        weight_BG = weight_BG / (weight_BG.sum(dim=1, keepdim=True) + EPSILON)
        quota_BG = (weight_BG * self.keep).floor().long()
        left_B1 = self.keep - quota_BG.sum(dim=1, keepdim=True)
        return quota_BG + (rank(weight_BG).argsort(dim=1) < left_B1)

    def choosing_flops(self, sizes: Sizes) -> int:
        if self.beta == 0:
            return costs.attention(sizes)
        crops = self._crops(sizes.visual_tokens)
        longest = -(-sizes.visual_tokens // crops)
        return costs.attention(sizes) + 2 * crops * longest**2 * sizes.hidden


class Crops:
    """Runs of nearly equal size, the first ones longer by one, as a table filled up to the longest.

    Attributes:
        sizes_G: int64; index_GS: int64, the tokens of every run (filled up with its last one); there_GS: bool.
    """

    def __init__(self, count: int, crops: int, device: torch.device) -> None:
        run_G = torch.arange(crops, device=device)
        self.sizes_G = count // crops + (run_G < count % crops).long()
        place_S = torch.arange(-(-count // crops), device=device)
        self.there_GS = place_S < self.sizes_G[:, None]
        start_G1 = (self.sizes_G.cumsum(dim=0) - self.sizes_G)[:, None]
        self.index_GS = start_G1 + place_S.minimum(self.sizes_G[:, None] - 1)

    def split(self, values_BN: Tensor) -> Tensor:
        """Values of every run `[B, G, S]`, 0 where it is filled up."""
        return values_BN[:, self.index_GS] * self.there_GS

    def means(self, values_BGS: Tensor) -> Tensor:
        """Mean over every run, `[B, G]`."""
        return (values_BGS * self.there_GS).sum(dim=2) / self.sizes_G
