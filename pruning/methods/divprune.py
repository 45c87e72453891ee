"""DivPrune: the visual tokens farthest from one another."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import BeforeLLM
from pruning.choosing.selection import max_min_diversity
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

DEFAULT_KEEP = 64


@dataclass
class DivPrune(BeforeLLM):
    """Alvar et al., arXiv 2503.02175, section 3: max-min diversity of the projected visual tokens.

    The first pick is the token farthest (1 - cosine) from its nearest neighbour, every further one the farthest from
    its nearest pick. Positions are re-packed. Tokens that repeat are never picked twice, unlike in the authors' code.

    Parameters:
        keep: tokens kept of every image; 64 if `ratio` is not given either.
        ratio: the paper's parameter instead, the share of the visual tokens: round(ratio * N) stay, half to even.
    """

    name: ClassVar[str] = "divprune"
    label: ClassVar[str] = "DivPrune"
    budget_parameter: ClassVar[str | None] = "keep"

    keep: int | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and self.ratio is not None:
            raise ValueError("keep and ratio both say how many tokens stay: give one of them")
        if self.keep is not None:
            checks.whole_number("keep", self.keep, minimum=1)
        if self.ratio is not None:
            checks.fraction("ratio", self.ratio, zero=False)

    def count(self, num_visual: int) -> int:
        if self.ratio is not None:
            return max(1, round(self.ratio * num_visual))
        keep = DEFAULT_KEEP if self.keep is None else self.keep
        checks.keep_of(keep, num_visual)
        return keep

    def select(self, seen: Observed) -> Tensor:
        return max_min_diversity(seen.projected_BND, self.count(seen.num_visual)).sort(dim=1).values

    def choosing_flops(self, sizes: Sizes) -> int:
        return 2 * sizes.visual_tokens**2 * sizes.hidden
