"""PyramidDrop: visual tokens leave in stages, by the attention that the coming layer pays them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM
from pruning.engine.seen import ObservedLayer
from pruning.models.sizes import Sizes


@dataclass
class PyramidDrop(InsideLLM):
    """Xing et al., arXiv 2410.17247, section 3.

    In front of every listed layer stay the visual tokens with the highest attention of the last token, computed with
    that layer's own weights ahead of running it (softmax over the entire sequence, mean over heads), among the tokens
    still present. Positions are re-packed after every stage; in decoding, a layer's position is the length of its
    cache.

    Unlike the authors' code it takes batches, padding, grouped-query attention and eager attention.

    Parameters:
        layers: 0-based layers in front of which tokens leave, ascending; None: at 1/4, 1/2 and 3/4 of the decoder,
            which is the paper's 8, 16, 24 of 32.
        ratio: lambda in the paper, the share of the visual tokens present that a stage keeps.
        ratios: instead of `ratio`, the share of the original visual tokens left after each stage, falling.
    """

    name: ClassVar[str] = "pyramiddrop"
    label: ClassVar[str] = "PyramidDrop"
    positions = "repacked"
    budget_parameter: ClassVar[str | None] = "ratio"

    layers: Sequence[int] | None = None
    ratio: float = 0.5
    ratios: Sequence[float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layers is not None:
            checks.ascending_layers("layers", self.layers)
        checks.fraction("ratio", self.ratio)
        if self.ratios is not None:
            for ratio in self.ratios:
                checks.fraction("every entry of ratios", ratio)

    def _layers(self, num_layers: int) -> list[int]:
        if self.layers is not None:
            return list(self.layers)
        return sorted({max(1, num_layers * quarter // 4) for quarter in (1, 2, 3)})

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        layers = self._layers(num_layers)
        if layers[-1] >= num_layers:
            raise ValueError(f"layers={layers} do not lie within the {num_layers} decoder layers: lower them")
        ratios = self.ratios if self.ratios is not None else [self.ratio ** (stage + 1) for stage in range(len(layers))]
        if len(ratios) != len(layers):
            raise ValueError(f"ratios={list(ratios)} and layers={layers} differ in number: give one ratio a layer")
        return {layer: int(num_visual * ratio) for layer, ratio in zip(layers, ratios, strict=True)}

    def score(self, seen: ObservedLayer) -> Tensor:
        return seen.attention_ahead()[:, :, 0].mean(dim=1)

    def choosing_flops(self, sizes: Sizes) -> int:
        per_layer = self.visual_tokens_per_layer(sizes.visual_tokens, sizes.layers)
        flops = 0
        for layer in self._layers(sizes.layers):
            present = per_layer[layer - 1] + sizes.text_tokens
            query = sizes.hidden * sizes.heads * sizes.head_dim
            keys = present * sizes.hidden * sizes.kv_heads * sizes.head_dim
            flops += 2 * (query + keys + present * sizes.heads * sizes.head_dim)
        return flops
