"""The evidence oracle: what a method could reach if it knew where the answer is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import Role
from pruning.choosing.selection import rank, stable_top_k
from pruning.engine.seen import Observed
from pruning.methods.random import Random, random_scores
from pruning.models.sizes import Sizes
from pruning.models.vision import touched

Box = Sequence[float]


@dataclass
class Oracle(Random):
    """Tokens that the ground-truth evidence boxes touch first, then random ones.

    Every box lines up its tokens by their distance to its centre; the boxes then take turns, so that each gets its
    share. A token inside several boxes belongs to the one where it comes first.

    Parameters:
        keep: tokens kept of every image.
        seed: of the random rest.
        boxes: for every sample of the batch its boxes [x0, y0, x1, y1], in 0..1 of the image as the vision tower sees
            it; they apply to all images of the sample.
    """

    name: ClassVar[str] = "oracle"
    label: ClassVar[str] = "Oracle"
    role: ClassVar[Role] = "oracle"
    told: ClassVar[tuple[str, ...]] = ("boxes",)

    boxes: Sequence[Sequence[Box]] = field(default=())

    def __post_init__(self) -> None:
        super().__post_init__()
        for box in (box for boxes in self.boxes for box in boxes):
            if len(box) != 4:
                raise ValueError(f"boxes must hold [x0, y0, x1, y1] for every box, not {box!r}")
            for edge in box:
                checks.fraction("boxes", edge)

    def select(self, seen: Observed) -> Tensor:
        if len(self.boxes) <= max(seen.samples):
            raise ValueError(f"boxes has {len(self.boxes)} samples but the batch more: give a list for every sample")
        by_chance_BN = rank(random_scores(seen, self.seed)).argsort(dim=1)
        turn_BN = torch.stack(
            [
                _turns(cells_N4, torch.tensor(self.boxes[sample], device=seen.device).view(-1, 4))
                for cells_N4, sample in zip(seen.cells_BN4, seen.samples, strict=True)
            ]
        )
        # Evidence first, by turn; what no box touches follows by chance.
        place_BN = torch.where(turn_BN >= 0, turn_BN - turn_BN.amax() - 1, by_chance_BN)
        return stable_top_k(-place_BN, self.keep)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


def _turns(cells_N4: Tensor, boxes_J4: Tensor) -> Tensor:
    """When each token is taken, int64 `[N]`, -1 for those that no box touches."""
    count, boxes = len(cells_N4), len(boxes_J4)
    if boxes == 0:
        return torch.full((count,), -1, device=cells_N4.device)
    inside_JN = touched(cells_N4, boxes_J4)
    centres_N2, aims_J2 = (cells_N4[:, :2] + cells_N4[:, 2:]) / 2, (boxes_J4[:, :2] + boxes_J4[:, 2:]) / 2
    distance_JN = (centres_N2 - aims_J2[:, None]).square().sum(dim=-1).masked_fill(~inside_JN, float("inf"))
    distance_JN = distance_JN.nan_to_num(nan=float("inf"), posinf=float("inf"))
    first_N = _places(distance_JN).masked_fill(~inside_JN, count).argmin(dim=0)
    own_JN = inside_JN & (first_N == torch.arange(boxes, device=cells_N4.device)[:, None])
    place_JN = _places(distance_JN.masked_fill(~own_JN, float("inf")))
    turn_JN = place_JN * boxes + torch.arange(boxes, device=cells_N4.device)[:, None]
    return turn_JN.masked_fill(~own_JN, -1).amax(dim=0)


def _places(values_JN: Tensor) -> Tensor:
    """Place of every value in its row, ascending, equal ones by index."""
    return values_JN.argsort(dim=1, stable=True).argsort(dim=1)
