"""GlimpsePrune's pruning by lot: masks of given sizes, to set the predicted ones beside."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from pruning.choosing import checks
from pruning.engine.seen import ObservedLayer
from pruning.glimpse.readout import Importance, visual_grids
from pruning.glimpse.selection import KeepImportant
from pruning.models.sizes import Sizes


@dataclass
class RandomMasks(KeepImportant):
    """GlimpsePrune's pruning with masks drawn at random, each of the size that it is told.

    Beside GlimpsePrune's own masks of these sizes it shows what choosing them is worth: behind a layer that has read
    the image already, any mask would do.

    Parameters:
        k: 0-based layer in front of which tokens leave, at least 1; GlimpsePrune's K + 1.
        counts: for every sample of the batch how many of its visual tokens stay.
        seed: of the masks, together with the sample's place in the batch.
    """

    name: ClassVar[str] = "random_masks"
    told: ClassVar[tuple[str, ...]] = ("counts",)

    k: int = 2
    counts: Sequence[int] = field(default=())
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
        if len(self.counts) != len(visual):
            raise ValueError(f"counts has {len(self.counts)} samples but the batch {len(visual)}")
        grids, image_tokens = visual_grids(seen.vision, visual)
        logits = []
        for sample, (count, own) in enumerate(zip(self.counts, grids, strict=True)):
            tokens = sum(rows * columns for rows, columns in own)
            drawn = torch.randperm(tokens, generator=torch.Generator().manual_seed(self.seed + sample))
            logits.append(torch.where(drawn < count, 1.0, -1.0))
        return Importance(torch.cat(logits).to(seen.hidden_BSD.device), grids, image_tokens)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0
