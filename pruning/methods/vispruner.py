"""VisPruner: important tokens by [CLS] attention, the rest by diversity."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks, costs
from pruning.choosing.base import KeepPerImage
from pruning.choosing.selection import drop_redundant, rank
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes


@dataclass
class VisPruner(KeepPerImage):
    """Zhang et al., arXiv 2412.01818, section 3.

    Of the `keep` tokens of an image, int(keep * important_ratio) have the highest attention of [CLS] (mean over heads)
    in the vision layer whose features the language model gets; the others are what is left when the most redundant of
    the remaining tokens are dropped, a few at a time. Positions are re-packed.

    Unlike the authors' code it takes odd numbers of tokens, any `keep` and batches. Where the tower has no [CLS], the
    mean attention received stands in for it; in LLaVA-NeXT all crops of an image share `keep`.

    Parameters:
        keep: tokens kept of every image.
        important_ratio: share chosen by attention; 1 is FasterVLM.
    """

    name: ClassVar[str] = "vispruner"
    label: ClassVar[str] = "VisPruner"

    important_ratio: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("important_ratio", self.important_ratio)

    def select(self, seen: Observed) -> Tensor:
        ranked_BN = rank(seen.cls_attention_BHN.mean(dim=1))
        important = int(self.keep * self.important_ratio)
        diverse = drop_redundant(seen.features_BNC, ranked_BN[:, important:], self.keep - important)
        return torch.cat([ranked_BN[:, :important], diverse], dim=1).sort(dim=1).values

    def choosing_flops(self, sizes: Sizes) -> int:
        important = int(self.keep * self.important_ratio)
        rest = sizes.visual_tokens - important
        compares = self.keep - important not in (0, rest)
        return costs.attention(sizes) + (2 * rest**2 * sizes.vision_width if compares else 0)
