"""VTW: from one layer on, no visual token is left."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pruning import checks
from pruning.base import InsideLLM
from pruning.budget import Sizes
from pruning.observed import ObservedLayer
from pruning.tokens import Choice


@dataclass
class VTW(InsideLLM):
    """Visual Tokens Withdrawal, Lin et al., arXiv 2405.05803, section 4.

    All visual tokens leave in front of layer k: by then the text has taken up what it needs. Original positions.

    Parameters:
        k: 0-based layer in front of which all visual tokens leave, at least 1. The authors take the first from 5 on
            whose output stays close enough to the full model's; on LLaVA-1.5-7B that is 15.
    """

    name: ClassVar[str] = "vtw"
    budget_parameter: ClassVar[str | None] = "k"

    k: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=1)

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.k >= num_layers:
            raise ValueError(f"k={self.k} is not in front of any of the {num_layers} decoder layers: lower k")
        return {self.k: 0}

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        return Choice(~seen.visual_BS, [0] * len(counts))

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0
