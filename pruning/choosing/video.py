"""What methods for videos share: frames of tokens, and what is done with images."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruning.choosing.base import BeforeLLM
from pruning.choosing.merging import in_prompt, wide
from pruning.choosing.selection import rank
from pruning.engine.contract import MergedTokens, Selected
from pruning.engine.seen import Observed
from pruning.models.family import Family


@dataclass
class VideoMethod(BeforeLLM):
    """A method before the language model that chooses among all tokens of a video.

    Frames are the temporal patches that the language model gets. Images, and videos of a single one, stay as they are.
    """

    videos_only: ClassVar[bool] = True

    def repacks(self, family: Family) -> bool:
        """Whether what stays is numbered anew.

        Raises:
            ValueError: models of the family take no videos, or as `BeforeLLM` has it.
        """
        if family.video_token_id is None:
            raise ValueError(f"{self.name} prunes videos, and models of type {family.model_type!r} take none")
        return super().repacks(family)

    def select(self, seen: Observed) -> Tensor | MergedTokens | Selected:
        if len(seen.rasters) < 2:
            return torch.arange(seen.num_visual, device=seen.device).expand(seen.num_images, -1)
        return self.select_frames(seen, len(seen.rasters))

    @abstractmethod
    def select_frames(self, seen: Observed, frames: int) -> Tensor | MergedTokens | Selected:
        """The choice for B videos of equal size, as `select`; N is `frames` times M tokens, frame by frame."""


def by_frame(values_BN: Tensor, frames: int) -> Tensor:
    """`[B, F, M, ...]` of `[B, N, ...]`."""
    return values_BN.unflatten(1, (frames, -1))


def first_of_frames(scores_BFM: Tensor, counts_BF: Tensor) -> Tensor:
    """Of every frame the tokens of the highest scores, bool `[B, F, M]`; equal ones by lower index."""
    return rank(scores_BFM).argsort(dim=2) < counts_BF[..., None]


def indices(kept_BN: Tensor, most: int) -> Tensor:
    """int64 `[B, most]`, ascending, of a mask; a row with fewer repeats its last one."""
    order_BK = (~kept_BN).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    last_B1 = (kept_BN.sum(dim=1, keepdim=True) - 1).clamp(min=0)
    return order_BK.gather(1, torch.arange(most, device=kept_BN.device).minimum(last_B1))


def similarity_of_neighbours(features_FG: Tensor) -> Tensor:
    """Cosine of every frame with the next one, `[F - 1]`."""
    unit_FG = normalize(wide(features_FG), dim=-1)
    return (unit_FG[:-1] * unit_FG[1:]).sum(dim=-1)


def lengths_of_segments(cut_F: Tensor) -> list[int]:
    """Frames of each segment, where bool `[F - 1]` says behind which frames to cut. Waits for the device."""
    lengths, length = [], 1
    for cut in cut_F.tolist():
        if cut:
            lengths.append(length)
            length = 0
        length += 1
    return [*lengths, length]


def density_peaks(distance_BNN: Tensor, neighbours: int) -> Tensor:
    """Score of every token as a centre of clusters (Du et al., 2016: DPC-kNN), `[B, N]`.

    Its density, exp of the negated mean of the squared distances to its nearest neighbours (itself among them), times
    the distance to the nearest token of higher density; the largest distance of all for the densest.
    """
    nearest_BNK = distance_BNN.topk(min(neighbours, distance_BNN.shape[2]), dim=2, largest=False).values
    density_BN = nearest_BNK.square().mean(dim=2).neg().exp()
    denser_BNN = density_BN[:, None] > density_BN[:, :, None]
    largest_B11 = distance_BNN.amax(dim=(1, 2), keepdim=True)
    return torch.where(denser_BNN, distance_BNN, largest_B11).amin(dim=2) * density_BN


def cluster(tokens_RD: Tensor, clusters: int, neighbours: int) -> tuple[Tensor, Tensor]:
    """DPC-kNN: the centres, int64 `[C]`, and which tokens are nearest to each, bool `[C, R]`."""
    distance_RR = torch.cdist(tokens_RD, tokens_RD) / tokens_RD.shape[1] ** 0.5
    centre_C = rank(density_peaks(distance_RR[None], min(clusters, neighbours))[0])[:clusters]
    place_C = torch.arange(clusters, device=centre_C.device)
    nearest_R = distance_RR[:, centre_C].argmin(dim=1).scatter(0, centre_C, place_C)
    return centre_C, nearest_R == place_C[:, None]


def merged_videos(seen: Observed, parts: list[tuple[Tensor, Tensor, Tensor]]) -> MergedTokens:
    """Videos of equal size whose tokens were merged one after the other.

    Args:
        parts: of every video the places that its tokens take, int64 `[T]`, ascending; the tokens `[T, D]`; and what
            each is made of, bool `[T, N]`. Their number may differ.
    """
    counts = [len(places_T) for places_T, _, _ in parts]

    def stacked(values: list[Tensor]) -> Tensor:
        most = max(counts)
        filled = [torch.cat([one, one[-1:].expand(most - len(one), *one.shape[1:])]) for one in values]
        return torch.stack(filled)

    places_BT, tokens_BTD, members_BTN = (stacked(list(values)) for values in zip(*parts, strict=True))
    numbers_BT = places_BT.masked_fill(members_BTN.sum(dim=2) > 1, -1)
    tokens_BTD = tokens_BTD.to(seen.projected_BND.dtype)
    return in_prompt(seen, tokens_BTD, places_BT, numbers_BT, members_BTN, counts if len(set(counts)) > 1 else None)
