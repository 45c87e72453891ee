"""The evidence oracle inside the language model: GlimpsePrune's pruning if its predictor were always right."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing.base import Role
from pruning.glimpse.given import GivenMasks
from pruning.glimpse.losses import box_mask
from pruning.methods.oracle import Box


@dataclass
class OracleInside(GivenMasks):
    """GlimpsePrune's pruning with the ground-truth mask in place of the predictor's, and without the glimpse token.

    It is the forward pass in which GlimpsePrune+ trains the language model (arXiv 2508.01548): in front of layer k all
    visual tokens leave but those that the evidence boxes cover, and from the caches of earlier layers too. Where the
    rules of `KeepImportant` ask for fewer or for more, covered tokens come first, then others, drawn by the seed: a
    sample of two equal prompts keeps the same tokens.

    Parameters:
        boxes: for every sample of the batch its boxes [x0, y0, x1, y1], in 0..1 of the image as the vision tower sees
            it; they apply to all images of the sample.
    """

    name: ClassVar[str] = "oracle_inside"
    label: ClassVar[str] = "Oracle inside the LLM"
    role: ClassVar[Role] = "oracle"
    told: ClassVar[tuple[str, ...]] = ("boxes",)

    boxes: Sequence[Sequence[Box]] = field(default=())

    def logits(self, sample: int, given: Sequence[Box], grids: list[tuple[int, int]]) -> Tensor:
        masks = [box_mask(given, *grid).flatten() for grid in grids]
        covered_N = torch.cat(masks) if masks else torch.zeros(0).bool()
        chance_N = torch.rand(len(covered_N), generator=torch.Generator().manual_seed(self.seed))
        return torch.where(covered_N, 1 + chance_N, chance_N - 2)
