"""FastVID: a video in segments, salient tokens of every frame, and a few anchors that take in the rest."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruning.choosing import checks
from pruning.choosing.merging import pick_rows, wide
from pruning.choosing.selection import rank, stable_top_k
from pruning.choosing.video import (
    VideoMethod,
    by_frame,
    density_peaks,
    lengths_of_segments,
    merged_videos,
    similarity_of_neighbours,
)
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

NEIGHBOURS = 4


@dataclass
class FastVID(VideoMethod):
    """Shen et al., arXiv 2503.11187: dynamic temporal segmentation and density spatiotemporal pruning.

    The video is cut behind the frames that are least like the next one, and wherever that cosine is below `tau`. Every
    frame gives int(ratio * M) tokens: the salient ones stay as they are, the others are pooled over the segment and
    given to every p-th of its frames, from the last one back, as anchors, the centres of the densest clusters. Each
    anchor frame takes in all other tokens of its segment on its own: they join the most similar anchor (cosine), which
    becomes a weighted mean of itself and theirs. Positions are the original ones.

    Saliency is the attention of the mean query of a frame, as in the authors' code for Qwen2.5-VL, and frames compare
    by the mean of their tokens; the allocation is that of their code for LLaVA-OneVision, rounded down twice. Anchors
    are capped at the tokens there are, densities get no random noise. A video is cut on the host, one after the other.

    Parameters:
        ratio: share of the tokens of a frame.
        segments: at least so many, where there are as many frames.
        tau: cut wherever neighbouring frames are less alike.
        context_share: of a frame's tokens, rounded down, that are anchors.
        anchor_every: p.
        beta: least weight of an anchor itself in its mean.
    """

    name: ClassVar[str] = "fastvid"
    label: ClassVar[str] = "FastVID"

    ratio: float = 0.1
    segments: int = 8
    tau: float = 0.9
    context_share: float = 0.4
    anchor_every: int = 4
    beta: float = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("ratio", "context_share", "beta"):
            checks.fraction(name, getattr(self, name))
        for name in ("segments", "anchor_every"):
            checks.whole_number(name, getattr(self, name), minimum=1)
        checks.between("tau", self.tau, -1, 1)

    def count(self, num_visual: int) -> int | None:
        return None

    def select_frames(self, seen: Observed, frames: int) -> MergedTokens:
        tokens_BFMD = by_frame(seen.projected_BND, frames)
        attention_BFM = by_frame(seen.frame_attention_BN, frames)
        return merged_videos(
            seen,
            [
                self.merge(tokens_FMD, attention_FM, wide(tokens_FMD).mean(dim=1))[0]
                for tokens_FMD, attention_FM in zip(tokens_BFMD, attention_BFM, strict=True)
            ],
        )

    def merge(
        self, tokens_FMD: Tensor, attention_FM: Tensor, frames_FG: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[int]]:
        """One video.

        Args:
            tokens_FMD: as the language model gets them.
            attention_FM: saliency.
            frames_FG: what frames compare by.

        Returns:
            The places of the tokens left, the tokens and what each is made of, as `merged_videos` takes them; and the
            frames of every segment.
        """
        tokens_FMD = wide(tokens_FMD)
        frames, size = tokens_FMD.shape[:2]
        kept = int(size * self.ratio)
        anchors = int(kept * self.context_share)
        if kept == 0:
            raise ValueError(f"ratio={self.ratio} leaves none of the {size} tokens of a frame: raise ratio")
        lengths = lengths_of_segments(self._cuts(frames_FG))
        salient_FK = stable_top_k(attention_FM, kept - anchors)
        rest_FR = stable_top_k(_outside(salient_FK, size), size - salient_FK.shape[1])
        rest_FRD = pick_rows(tokens_FMD, rest_FR)
        distance_FRR = torch.cdist(rest_FRD, rest_FRD) / tokens_FMD.shape[2] ** 0.5
        ranked_FR = rank(density_peaks(distance_FRR, NEIGHBOURS)) if anchors else rest_FR

        offset_F1 = torch.arange(frames, device=tokens_FMD.device)[:, None] * size
        places, values = [(salient_FK + offset_F1).flatten()], [pick_rows(tokens_FMD, salient_FK).flatten(0, 1)]
        members = [places[0][:, None] == torch.arange(frames * size, device=tokens_FMD.device)]
        for first, behind in pairwise([sum(lengths[:number]) for number in range(len(lengths) + 1)]):
            each = min(anchors * (behind - first) // -(-(behind - first) // self.anchor_every), rest_FR.shape[1])
            if each == 0:
                continue
            for frame in range(behind - 1, first - 1, -self.anchor_every):
                among = slice(frame, frame + 1) if each == anchors else slice(first, behind)
                own_K = rest_FR[frame, ranked_FR[frame, :each]] + offset_F1[frame]
                taken_R = (rest_FR[among] + offset_F1[among]).flatten()
                tokens_KD, joined_KR = self._absorb(tokens_FMD.flatten(0, 1), own_K, taken_R)
                places.append(own_K)
                values.append(tokens_KD)
                own_KN = members[0].new_zeros(each, frames * size).scatter(1, own_K[:, None], True)
                members.append(own_KN | torch.zeros_like(own_KN).scatter(1, taken_R.expand(each, -1), joined_KR))
        place_T, order_T = torch.cat(places).sort()
        return (place_T, torch.cat(values)[order_T], torch.cat(members)[order_T]), lengths

    def _cuts(self, frames_FG: Tensor) -> Tensor:
        """Behind which frames the video is cut, bool `[F - 1]`."""
        alike_F = similarity_of_neighbours(frames_FG)
        least = min(self.segments - 1, len(alike_F))
        return (rank(-alike_F).argsort() < least) | (alike_F < self.tau)

    def _absorb(self, tokens_ND: Tensor, anchors_K: Tensor, taken_R: Tensor) -> tuple[Tensor, Tensor]:
        """Anchors with what joins each of them, `[K, D]`, and which tokens that is, bool `[K, R]`."""
        own_KD, taken_RD = tokens_ND[anchors_K], tokens_ND[taken_R]
        nearest_R = (normalize(taken_RD, dim=-1) @ normalize(own_KD, dim=-1).mT).argmax(dim=1)
        joined_KR = nearest_R == torch.arange(len(anchors_K), device=nearest_R.device)[:, None]
        number_K1 = joined_KR.sum(dim=1, keepdim=True)
        mean_KD = joined_KR.to(own_KD.dtype) @ taken_RD / number_K1.clamp(min=1)
        weight_K1 = (1 / (number_K1.to(own_KD.dtype) + 1)).clamp(min=self.beta)
        return weight_K1 * own_KD + (1 - weight_K1) * mean_KD, joined_KR

    def choosing_flops(self, sizes: Sizes) -> int:
        raise ValueError(f"{self.name} decides by the video what is compared: there is no formula")


def _outside(index_FK: Tensor, size: int) -> Tensor:
    """1.0 for every token that is not listed, else 0.0: `[F, M]`."""
    return torch.ones(len(index_FK), size, device=index_FK.device).scatter(1, index_FK, 0.0)
