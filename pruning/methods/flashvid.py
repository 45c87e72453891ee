"""FlashVID: attentive and diverse tokens stay, the others are merged along trees through time; then one cut inside."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM, Method, PerImage, Role
from pruning.choosing.merging import wide
from pruning.choosing.selection import rank
from pruning.choosing.video import (
    VideoMethod,
    by_frame,
    cluster,
    lengths_of_segments,
    merged_videos,
    similarity_of_neighbours,
)
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed, ObservedLayer
from pruning.models.sizes import Sizes

NEIGHBOURS = 7
ATTENTION_SCALE = 1e6
LEAST_SIMILARITY = -1.0 + 1e-6

Part = tuple[Tensor, Tensor, Tensor]


@dataclass
class Trees(VideoMethod):
    """The half of `FlashVID` before the language model; parameters are told there."""

    name: ClassVar[str] = "flashvid"
    label: ClassVar[str] = "FlashVID"

    ratio: float = 0.25
    expansion: float = 1.25
    alpha: float = 0.7
    selection: str = "attn_div"
    temporal_threshold: float = 0.8
    segment_threshold: float = 0.9
    min_segments: int = 4
    counts: str = "reference"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("ratio", self.ratio, zero=False)
        checks.above_zero("expansion", self.expansion)
        checks.fraction("alpha", self.alpha, zero=False)
        checks.one_of("selection", self.selection, ("attn_div", "attn_div_v2"))
        checks.between("temporal_threshold", self.temporal_threshold, -1, 1)
        checks.between("segment_threshold", self.segment_threshold, -1, 1)
        checks.whole_number("min_segments", self.min_segments, minimum=1)
        checks.one_of("counts", self.counts, ("reference", "tree"))

    def count(self, num_visual: int) -> int | None:
        return None

    def select_frames(self, seen: Observed, frames: int) -> MergedTokens:
        tokens_BFMD = by_frame(seen.projected_BND, frames)
        attention_BFM = by_frame(seen.cls_attention_BHN.mean(dim=1), frames)
        videos = zip(tokens_BFMD, attention_BFM, strict=True)
        return merged_videos(seen, [self.merge(tokens_FMD, attention_FM)[0] for tokens_FMD, attention_FM in videos])

    def merge(self, tokens_FMD: Tensor, attention_FM: Tensor) -> tuple[Part, list[int]]:
        """One video: what is left of it, as `merged_videos` takes it, and the frames of every segment."""
        tokens_FMD = wide(tokens_FMD)
        frames, size = tokens_FMD.shape[:2]
        budget = min(math.ceil(size * self.ratio * self.expansion), size)
        selected = math.ceil(budget * self.alpha)
        lengths = lengths_of_segments(self._cuts(tokens_FMD.mean(dim=1)))
        parts, first = [], 0
        for length in lengths:
            of_segment = slice(first, first + length)
            place_T, values_TD, members_TN = self._segment(
                tokens_FMD[of_segment], attention_FM[of_segment], selected, budget
            )
            behind = (frames - first - length) * size
            parts.append((place_T + first * size, values_TD, pad(members_TN, (first * size, behind))))
            first += length
        places, values, members = (torch.cat(one) for one in zip(*parts, strict=True))
        place_T, order_T = places.sort()
        return (place_T, values[order_T], members[order_T]), lengths

    def _cuts(self, frames_FD: Tensor) -> Tensor:
        """Behind which frames the video is cut, bool `[F - 1]`."""
        alike_F = similarity_of_neighbours(frames_FD)
        cut_F = alike_F < self.segment_threshold
        order_F = rank(-alike_F.masked_fill(cut_F, float("-inf")))  # those that are cut already come first
        return cut_F | (order_F.argsort() < min(self.min_segments - 1, len(alike_F)))

    def _segment(self, tokens_FMD: Tensor, attention_FM: Tensor, selected: int, budget: int) -> Part:
        """What is left of a segment, numbered from its first token on."""
        frames, size = tokens_FMD.shape[:2]
        picks_FK = self.pick(tokens_FMD, attention_FM, selected)
        picked_FM = torch.zeros(frames, size, dtype=torch.bool, device=tokens_FMD.device).scatter(1, picks_FK, True)
        offset_F1 = torch.arange(frames, device=tokens_FMD.device)[:, None] * size
        place_K = (picks_FK + offset_F1).flatten()
        own_NN = torch.eye(frames * size, dtype=torch.bool, device=tokens_FMD.device)
        parts = [(place_K, tokens_FMD.flatten(0, 1)[place_K], own_NN[place_K])]
        wanted = (budget - selected) * frames
        if wanted:
            merged_FMD, root_N, left_FM = self.grow(tokens_FMD, picked_FM, budget)
            members_NN = root_N == torch.arange(frames * size, device=root_N.device)[:, None]
            numbers = left_FM.sum(dim=1).tolist()
            order_FM = (~left_FM).to(torch.uint8).argsort(dim=1, stable=True)
            for frame, number in enumerate(numbers):
                place_R = order_FM[frame, :number]
                tree_RN = members_NN[place_R + frame * size]
                share = wanted / sum(numbers)
                clusters = math.ceil(number * share)
                values_RD = merged_FMD[frame, place_R]
                if clusters > 0 and share < 1:
                    centre_C, joined_CR = cluster(values_RD, clusters, NEIGHBOURS)
                    weight_CR = joined_CR.to(values_RD.dtype)
                    values_RD = weight_CR @ values_RD / weight_CR.sum(dim=1, keepdim=True)
                    tree_RN = (weight_CR @ tree_RN.to(weight_CR.dtype)) > 0
                    place_R = place_R[centre_C]
                parts.append((place_R + frame * size, values_RD, tree_RN))
        places, values, members = (torch.cat(one) for one in zip(*parts, strict=True))
        return places, values, members

    def pick(self, tokens_FMD: Tensor, attention_FM: Tensor, selected: int) -> Tensor:
        """Attentive and diverse tokens of every frame, int64 `[F, K]` in the order of the picks."""
        unit_FMD = normalize(tokens_FMD, dim=-1)
        apart_FMM = (1 - unit_FMD @ unit_FMD.mT) * (ATTENTION_SCALE * attention_FM)[:, None]
        if self.selection == "attn_div_v2":
            apart_FMM = apart_FMM * (tokens_FMD @ tokens_FMD.mean(dim=1).mT).mean(dim=2)[:, None]
        gain_FM = apart_FMM.sort(dim=1).values[:, min(1, apart_FMM.shape[1] - 1)]
        nearest_FM = torch.full_like(gain_FM, float("inf"))
        picks = []
        for _ in range(selected):
            pick_F1 = gain_FM.argmax(dim=1, keepdim=True)
            picks.append(pick_F1)
            row_FM = apart_FMM.gather(1, pick_F1[..., None].expand(-1, -1, apart_FMM.shape[2]))[:, 0]
            nearest_FM = nearest_FM.minimum(row_FM).scatter(1, pick_F1, float("-inf"))
            gain_FM = nearest_FM
        return torch.cat(picks, dim=1)

    def grow(self, tokens_FMD: Tensor, picked_FM: Tensor, budget: int) -> tuple[Tensor, Tensor, Tensor]:
        """Merge a segment's other tokens along trees, each into the most similar one of the frame before.

        Returns:
            The tokens with what joined them, `[F, M, D]`; the number of the token that each one is part of, int64
            `[F * M]`; and those that are left, bool `[F, M]`.
        """
        frames, size = picked_FM.shape
        joins_FM, parent_FM = self._edges(tokens_FMD, picked_FM, budget)
        values, counts = list(tokens_FMD), list(torch.ones_like(picked_FM, dtype=tokens_FMD.dtype))
        places_M = torch.arange(size, device=picked_FM.device)
        for frame in range(frames - 1, 0, -1):
            joins_M = joins_FM[frame]
            into_MM = ((parent_FM[frame] == places_M[:, None]) & joins_M).to(tokens_FMD.dtype)
            values[frame - 1] = values[frame - 1] + into_MM @ values[frame]
            one_M = torch.ones_like(counts[frame]) if self.counts == "reference" else counts[frame]
            counts[frame - 1] = counts[frame - 1] + into_MM @ one_M
        roots = [places_M]
        for frame in range(1, frames):
            roots.append(torch.where(joins_FM[frame], roots[-1][parent_FM[frame]], places_M + frame * size))
        merged_FMD = torch.stack(values) / torch.stack(counts)[..., None]
        return merged_FMD, torch.cat(roots), ~joins_FM & ~picked_FM

    def _edges(self, tokens_FMD: Tensor, picked_FM: Tensor, budget: int) -> tuple[Tensor, Tensor]:
        """Which tokens join one of the frame before, and which one there: bool and int64 `[F, M]`."""
        frames, size = picked_FM.shape
        if frames == 1:
            return torch.zeros_like(picked_FM), torch.zeros_like(picked_FM, dtype=torch.long)
        unit_FMD = normalize(tokens_FMD, dim=-1)
        alike_FMM = unit_FMD[1:] @ unit_FMD[:-1].mT
        alike_FMM = alike_FMM.masked_fill(picked_FM[1:, :, None] | picked_FM[:-1, None], -1.0)
        best_FM, parent_FM = alike_FMM.max(dim=2)
        best_FM, parent_FM = pad(best_FM, (0, 0, 1, 0), value=-1.0), pad(parent_FM, (0, 0, 1, 0))
        joins_FM = best_FM > self.temporal_threshold
        least = budget * frames
        if least == frames * size:
            return torch.zeros_like(joins_FM), parent_FM
        ranked_N = best_FM.flatten().sort(descending=True).values
        higher = ranked_N[frames * size - least - 1].clamp(min=LEAST_SIMILARITY)
        too_few = (~joins_FM).sum() < least
        return torch.where(too_few, best_FM > higher, joins_FM), parent_FM

    def choosing_flops(self, sizes: Sizes) -> int:
        raise ValueError(f"{self.name} decides by the video what is compared: there is no formula")


@dataclass
class LastStage(InsideLLM):
    """The half of `FlashVID` inside the language model: FastV, rounded up."""

    name: ClassVar[str] = "flashvid"
    label: ClassVar[str] = "FlashVID"

    layer: int | None = None
    share: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None:
            checks.whole_number("layer", self.layer, minimum=1)
        checks.fraction("share", self.share)

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        layer = max(1, num_layers * 5 // 7) if self.layer is None else self.layer
        if layer >= num_layers:
            raise ValueError(f"layer={layer} is not in front of any of the {num_layers} decoder layers: lower layer")
        return {layer: math.ceil(num_visual * self.share)}

    def score(self, seen: ObservedLayer) -> Tensor:
        return seen.attention()[:, :, 0].mean(dim=1)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 2 * (sizes.visual_tokens + sizes.text_tokens) * sizes.heads * sizes.head_dim


@dataclass
class FlashVID(Method):
    """Fan et al., arXiv 2602.08024: attention and diversity, trees through time, and one cut inside the language model.

    The video is cut wherever neighbouring frames are less alike than a threshold, and where they are least alike until
    there are enough segments. In a frame the tokens far from the picks so far, weighted by their attention, stay as
    they are ("attn_div_v2": also by how much they are like the segment's frames). The others join the most similar one
    of the frame before where their cosine is high enough, so that means along trees are left; the centres of their
    clusters in each frame (DPC-kNN) take in the rest. In front of a late layer the tokens with the highest attention of
    the last token stay, as in FastV, also those of images (`share=1.0` leaves this out). Positions are the original
    ones.

    The authors' count of what a mean is made of leaves out the lower branches, so that sums along long trees are
    divided by too little (counts="reference", as published); "tree" counts them all. Unlike their code a token is
    picked once, segments of one frame do not take the picks into their clusters again, and densities get no random
    noise. Attention is that received in the last block of the tower without windows. A video is cut on the host, one
    after the other.

    Expansion and the cut are set such that the mean over the layers is the ratio: 1.25 (20 + .3 * 8) / 28 = 1. A
    video's own number depends on its segments: there is no formula, and no budget can be solved for.

    Parameters:
        ratio: share of the tokens, mean over the layers; .1 to .25 are published.
        expansion: factor on it for the tokens that enter, ceil(M * ratio * expansion) a frame.
        alpha: share of these, rounded up, that is picked.
        selection: "attn_div" (the authors' for Qwen2.5-VL) or "attn_div_v2" (for LLaVA-OneVision).
        temporal_threshold: cosine above which a token joins.
        segment_threshold: cosine below which the video is cut.
        min_segments: at least so many, where there are as many frames.
        counts: "reference" or "tree".
        layer: 0-based layer in front of which tokens leave; None: at 5/7 of the decoder, 20 of 28.
        share: of the tokens present, rounded up, that stay there.
        mode: see `InsideLLM`.
    """

    name: ClassVar[str] = "flashvid"
    label: ClassVar[str] = "FlashVID"
    role: ClassVar[Role] = "both"
    videos_only: ClassVar[bool] = True

    ratio: float = 0.25
    expansion: float = 1.25
    alpha: float = 0.7
    selection: str = "attn_div"
    temporal_threshold: float = 0.8
    segment_threshold: float = 0.9
    min_segments: int = 4
    counts: str = "reference"
    layer: int | None = None
    share: float = 0.3
    mode: str = field(default="static", kw_only=True)

    def __post_init__(self) -> None:
        self.parts()

    @property
    def before(self) -> Trees:
        """The half before the language model."""
        thresholds = self.temporal_threshold, self.segment_threshold
        return Trees(
            self.ratio, self.expansion, self.alpha, self.selection, *thresholds, self.min_segments, self.counts
        )

    def parts(self) -> tuple[PerImage | None, InsideLLM | None]:
        return self.before, LastStage(self.layer, self.share, mode=self.mode)

    @property
    def uses_cache(self) -> bool:
        return self.mode == "static"

    def visual_tokens_per_layer(self, num_visual: int, num_layers: int) -> list[int]:
        raise ValueError(f"{self.name} decides by the video how many tokens stay: there is no formula")

    def choosing_flops(self, sizes: Sizes) -> int:
        raise ValueError(f"{self.name} decides by the video what is compared: there is no formula")
