"""GlimpsePrune's pruning by masks that are known beforehand, in the place of the predictor's."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.engine.seen import ObservedLayer
from pruning.glimpse.readout import Importance, visual_grids
from pruning.glimpse.selection import KeepImportant
from pruning.models.sizes import Sizes


@dataclass
class GivenMasks(KeepImportant):
    """`KeepImportant` by what it is told of every sample; no predictor, no glimpse token, and so no FLOPs.

    A subclass names in `told` its one parameter that lists something for every sample.

    Parameters:
        k: 0-based layer in front of which tokens leave, at least 1; GlimpsePrune's K + 1.
        seed: of what is drawn.
    """

    k: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=1)
        checks.whole_number("seed", self.seed)

    @property
    def first_pruned_layer(self) -> int:
        return self.k

    @abstractmethod
    def logits(self, sample: int, given: Any, grids: list[tuple[int, int]]) -> Tensor:
        """Logits `[N]` of a sample's visual tokens, on the CPU.

        Args:
            sample: its place in the batch.
            given: what was told of it.
            grids: rows and columns of each of its images.
        """

    def importance(self, seen: ObservedLayer) -> Importance:
        visual, (name,) = seen.tokens.visual[:: seen.copies], self.told
        given = getattr(self, name)
        if len(given) < len(visual):
            raise ValueError(f"{name} has {len(given)} samples but the batch more: give one entry for every sample")
        grids, image_tokens = visual_grids(seen.vision, visual)
        logits = [self.logits(sample, given[sample], own) for sample, own in enumerate(grids)]
        return Importance(torch.cat(logits).to(seen.hidden_BSD.device), grids, image_tokens)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0
