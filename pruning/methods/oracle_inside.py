"""The evidence oracle inside the language model: GlimpsePrune's pruning if its predictor were always right."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from pruning.choosing import checks
from pruning.choosing.base import Role
from pruning.engine.seen import ObservedLayer
from pruning.glimpse.losses import box_mask
from pruning.glimpse.readout import Importance, visual_grids
from pruning.glimpse.selection import KeepImportant
from pruning.methods.oracle import Box
from pruning.models.sizes import Sizes


@dataclass
class OracleInside(KeepImportant):
    """GlimpsePrune's pruning with the ground-truth mask in place of the predictor's, and without the glimpse token.

    It is the forward pass in which GlimpsePrune+ trains the language model (arXiv 2508.01548): in front of layer k all
    visual tokens leave but those that the evidence boxes cover, and from the caches of earlier layers too. Where the
    rules of `KeepImportant` ask for fewer or for more, covered tokens come first, then others, drawn by the seed: a
    sample of two equal prompts keeps the same tokens.

    Parameters:
        k: 0-based layer in front of which tokens leave, at least 1; GlimpsePrune's K + 1.
        boxes: for every sample of the batch its boxes [x0, y0, x1, y1], in 0..1 of the image as the vision tower sees
            it; they apply to all images of the sample.
        seed: of the order among covered tokens and among the others.
    """

    name: ClassVar[str] = "oracle_inside"
    label: ClassVar[str] = "Oracle inside the LLM"
    role: ClassVar[Role] = "oracle"
    told: ClassVar[tuple[str, ...]] = ("boxes",)

    k: int = 2
    boxes: Sequence[Sequence[Box]] = field(default=())
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=1)
        checks.whole_number("seed", self.seed)

    @property
    def first_pruned_layer(self) -> int:
        return self.k

    def importance(self, seen: ObservedLayer) -> Importance:
        visual = seen.tokens.visual[:: seen.copies]
        if len(self.boxes) < len(visual):
            raise ValueError(f"boxes has {len(self.boxes)} samples but the batch more: give a list for every sample")
        grids, image_tokens = visual_grids(seen.vision, visual)
        logits = []
        for boxes, own in zip(self.boxes, grids, strict=False):
            covered_N = torch.cat([box_mask(boxes, *grid).flatten() for grid in own]) if own else torch.zeros(0).bool()
            chance_N = torch.rand(len(covered_N), generator=torch.Generator().manual_seed(self.seed))
            logits.append(torch.where(covered_N, 1 + chance_N, chance_N - 2))
        return Importance(torch.cat(logits).to(seen.hidden_BSD.device), grids, image_tokens)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0
