"""HiPrune: an object layer's centres with their neighbours, then the last layer's tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import KeepPerImage
from pruning.choosing.raster import layout
from pruning.choosing.selection import rank, stable_top_k
from pruning.engine.seen import Observed
from pruning.models.family import Family
from pruning.models.sizes import Sizes


@dataclass
class HiPrune(KeepPerImage):
    """Liu et al., arXiv 2508.00553: anchors, buffers and registers.

    Tokens are ranked by the mean attention they receive over all heads and queries ([CLS] among them) in two layers of
    the vision tower. The round(keep * alpha / 5) best of the middle one stay with their neighbours above, below, left
    and right; the others are the best of the deep layer, the one whose features the language model gets. Positions are
    re-packed.

    The authors' code takes the neighbours by number: left of the first column is the end of the row above, and past the
    corners the first or last token stands in (`wrap=True`). By default a neighbour outside the image is none.

    In LLaVA-NeXT's crops, which form no raster, neighbours are those before and behind.

    Parameters:
        keep: tokens kept of every image.
        alpha: share of the tokens that comes from the middle layer.
        object_layer: the middle layer, 0-based block of the tower. None: the authors', 8 of 24 and 15 of 32 in Qwen's
            towers, and at the same depth in others; in Qwen2.5-VL among the blocks without windows.
        wrap: take neighbours by number, as the authors' code does.
    """

    name: ClassVar[str] = "hiprune"
    label: ClassVar[str] = "HiPrune"
    changes_tower: ClassVar[bool] = True

    alpha: float = 0.1
    object_layer: int | None = None
    wrap: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("alpha", self.alpha)
        if self.object_layer is not None:
            checks.whole_number("object_layer", self.object_layer)

    def attention_blocks(self, family: Family) -> Sequence[int]:
        if self.object_layer is not None:
            return self.object_layer, family.vision_layer
        config = family.model.config
        layers = family.vision_sizes(config.vision_config)[2]
        aim = layers // 2 - 1 if family.mrope else layers // 3
        nearest = min(family.full_attention_blocks(config), key=lambda block: abs(block - aim))
        return nearest, family.vision_layer

    def select(self, seen: Observed) -> Tensor:
        middle_BN, deep_BN = (received_BHN.mean(dim=1) for received_BHN in seen.watched_received)
        return self.choose(middle_BN, deep_BN, layout(seen))

    def choose(self, middle_BN: Tensor, deep_BN: Tensor, layout: tuple[int, int, int]) -> Tensor:
        """The kept tokens, int64 `[B, keep]`, ascending.

        Args:
            middle_BN, deep_BN: attention received in the two layers.
            layout: frames, rows and columns.
        """
        count = middle_BN.shape[1]
        self.count(count)
        centres_BK = rank(middle_BN)[:, : round(self.keep * self.alpha / 5)]
        near_BK = by_number(centres_BK, layout[2], count) if self.wrap else in_raster(centres_BK, layout)
        # A last column takes what is outside.
        anchors_BN = torch.zeros(len(middle_BN), count + 1, dtype=torch.bool, device=middle_BN.device)
        anchors_BN = anchors_BN.scatter(1, near_BK, True)[:, :count]
        return stable_top_k(deep_BN.masked_fill(anchors_BN, float("inf")), self.keep)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 2 * 2 * sizes.vision_tokens**2 * sizes.vision_width


def by_number(centres_BK: Tensor, columns: int, count: int) -> Tensor:
    """Tokens and the four around them by number, clamped to those there are."""
    return torch.cat([centres_BK + step for step in (0, -1, 1, -columns, columns)], dim=1).clamp(0, count - 1)


def in_raster(centres_BK: Tensor, layout: tuple[int, int, int]) -> Tensor:
    """Tokens and the four around them in their frame; the number of tokens stands for those outside."""
    frames, rows, columns = layout
    row_BK, column_BK = centres_BK // columns % rows, centres_BK % columns
    near = [centres_BK]
    for down, right in ((0, -1), (0, 1), (-1, 0), (1, 0)):
        inside_BK = (row_BK + down >= 0) & (row_BK + down < rows)
        inside_BK &= (column_BK + right >= 0) & (column_BK + right < columns)
        near.append((centres_BK + down * columns + right).where(inside_BK, frames * rows * columns))
    return torch.cat(near, dim=1)
