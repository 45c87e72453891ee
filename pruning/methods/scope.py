"""SCOPE: tokens that are salient and cover what the picks before them do not."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing import checks, costs
from pruning.choosing.base import KeepPerImage
from pruning.choosing.coverage import greedy_coverage
from pruning.choosing.selection import cosine_similarity
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes


@dataclass
class Scope(KeepPerImage):
    """Deng et al., arXiv 2510.24214: saliency-coverage oriented pruning.

    A pick is the token with the largest gain in coverage times saliency. Coverage of a patch is its largest cosine with
    a picked one (0 before the first), a gain is the sum over all patches of what a token would add, and saliency is the
    attention of [CLS], summed over heads, to the power of `alpha`, both in the vision layer whose features the language
    model gets. Nothing is merged; tokens enter in raster order, positions are re-packed.

    The authors' code compares features in the tower's own precision; here half precision is compared in float32. Where
    the tower has no [CLS], the mean attention received stands in for it; in LLaVA-NeXT all crops share `keep`, where
    the authors give each crop an equal part.

    Parameters:
        keep: tokens kept of every image.
        alpha: exponent of the saliency; 1 in every published script.
    """

    name: ClassVar[str] = "scope"
    label: ClassVar[str] = "SCOPE"

    alpha: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative("alpha", self.alpha)

    def select(self, seen: Observed) -> Tensor:
        return self.picks(seen).sort(dim=1).values

    def picks(self, seen: Observed) -> Tensor:
        """int64 `[B, keep]` in the order of the picks."""
        self.count(seen.num_visual)
        worth_BN = seen.cls_attention_BHN.sum(dim=1) ** self.alpha
        similarity_BNN = cosine_similarity(seen.features_BNC)
        return greedy_coverage(similarity_BNN, self.keep, worth_BN=worth_BN.to(similarity_BNN.dtype))

    def choosing_flops(self, sizes: Sizes) -> int:
        return costs.attention(sizes) + 2 * sizes.visual_tokens**2 * sizes.vision_width
