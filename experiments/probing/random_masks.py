"""GlimpsePrune's pruning by lot: masks of given sizes, to set the predicted ones beside."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from pruning.glimpse.given import GivenMasks


@dataclass
class RandomMasks(GivenMasks):
    """GlimpsePrune's pruning with masks drawn at random, each of the size that it is told.

    Beside GlimpsePrune's own masks of these sizes it shows what choosing them is worth: behind a layer that has read
    the image already, any mask would do. A mask depends on the seed and on the sample's place in the batch.

    Parameters:
        counts: for every sample of the batch how many of its visual tokens stay.
    """

    name: ClassVar[str] = "random_masks"
    told: ClassVar[tuple[str, ...]] = ("counts",)

    counts: Sequence[int] = field(default=())

    def logits(self, sample: int, given: int, grids: list[tuple[int, int]]) -> Tensor:
        tokens = sum(rows * columns for rows, columns in grids)
        drawn = torch.randperm(tokens, generator=torch.Generator().manual_seed(self.seed + sample))
        return torch.where(drawn < given, 1.0, -1.0)
