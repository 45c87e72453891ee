"""FasterVLM: the visual tokens that [CLS] attends to most."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing import costs
from pruning.choosing.base import KeepPerImage
from pruning.choosing.selection import stable_top_k
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes


@dataclass
class FasterVLM(KeepPerImage):
    """Zhang et al., arXiv 2412.01818 (first version), section 3.2.

    The highest attention of [CLS] (mean over heads) in the vision layer whose features the language model gets.
    Positions are re-packed. Where the tower has no [CLS], the mean attention received stands in for it.

    Parameters:
        keep: tokens kept of every image.
    """

    name: ClassVar[str] = "fastervlm"
    label: ClassVar[str] = "FasterVLM"

    def select(self, seen: Observed) -> Tensor:
        return stable_top_k(seen.cls_attention_BHN.mean(dim=1), self.keep)

    def choosing_flops(self, sizes: Sizes) -> int:
        return costs.attention(sizes)
