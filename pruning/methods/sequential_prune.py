"""Sequential Prune: a few tokens leave in front of every layer, each time by the attention of the last token."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM
from pruning.engine.seen import ObservedLayer
from pruning.models.sizes import Sizes


@dataclass
class SequentialPrune(InsideLLM):
    """Progressive visual token reduction, LeeBumSeok/Tokenpruning.

    From layer k on, every layer removes `step` percent of the original visual tokens until the fraction r is gone. What
    stays are the tokens with the highest attention of the last token in the layer before (mean over heads), among the
    tokens still present. Original positions. With a single step it is FastV with `rounding="int"`.

    Parameters:
        k: 0-based layer in front of which the first tokens leave, at least 1.
        r: fraction of the visual tokens that is gone in the end; at least step / 100.
        step: percent of the original visual tokens that leaves in front of each layer.
    """

    name: ClassVar[str] = "sequential_prune"
    label: ClassVar[str] = "Sequential Prune"
    budget_parameter: ClassVar[str | None] = "r"

    k: int = 2
    r: float = 0.5
    step: float = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=1)
        checks.fraction("r", self.r, zero=False)
        checks.percentage("step", self.step)
        if self._steps == 0:
            raise ValueError(f"r={self.r} is below one step of {self.step} percent: raise r or lower step")

    @property
    def _steps(self) -> int:
        # In the reference's order of operations: int(1 / .07 * .7) is 9.
        return int(1 / (self.step / 100) * self.r)

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.k + self._steps > num_layers:
            raise ValueError(
                f"k={self.k} and {self._steps} steps do not fit {num_layers} layers: lower k or r, or raise step"
            )
        ratio = self.step / 100
        removed = [ratio * (stage + 1) for stage in range(self._steps - 1)] + [self.r]
        return {self.k + stage: int((1 - gone) * num_visual) for stage, gone in enumerate(removed)}

    def score(self, seen: ObservedLayer) -> Tensor:
        return seen.attention()[:, :, 0].mean(dim=1)

    def choosing_flops(self, sizes: Sizes) -> int:
        per_layer = self.visual_tokens_per_layer(sizes.visual_tokens, sizes.layers)
        looked_at = sum(per_layer[layer - 1] + sizes.text_tokens for layer in range(self.k, self.k + self._steps))
        return 2 * looked_at * sizes.heads * sizes.head_dim
