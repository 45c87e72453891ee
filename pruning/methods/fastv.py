"""FastV: one cut inside the language model, by the attention of the last token."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM
from pruning.engine.seen import ObservedLayer
from pruning.models.sizes import Sizes


@dataclass
class FastV(InsideLLM):
    """Chen et al., arXiv 2403.06764, section 4.

    In front of layer k the visual tokens with the highest attention of the last token in layer k-1 (mean over heads)
    stay. Original positions.

    Parameters:
        k: 0-based layer in front of which tokens leave, at least 1.
        r: fraction of the visual tokens that leaves.
        rounding: of the number kept: "round" (round(N(1-r)), half to even; the authors' transformers fork) or "int"
            (int(N(1-r)); the variant in Sequential Prune's code).
    """

    name: ClassVar[str] = "fastv"
    label: ClassVar[str] = "FastV"
    budget_parameter: ClassVar[str | None] = "r"

    k: int = 2
    r: float = 0.5
    rounding: str = "round"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=1)
        checks.fraction("r", self.r)
        checks.one_of("rounding", self.rounding, ("round", "int"))

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.k >= num_layers:
            raise ValueError(f"k={self.k} is not in front of any of the {num_layers} decoder layers: lower k")
        kept = num_visual * (1 - self.r)
        return {self.k: round(kept) if self.rounding == "round" else int(kept)}

    def score(self, seen: ObservedLayer) -> Tensor:
        return seen.attention()[:, :, 0].mean(dim=1)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 2 * (sizes.visual_tokens + sizes.text_tokens) * sizes.heads * sizes.head_dim
