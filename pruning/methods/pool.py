"""Average pooling: a smaller grid of visual tokens, the bar that several published methods do not clear."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.base import KeepPerImage, Merged
from pruning.budget import Sizes
from pruning.merging import in_prompt, wide
from pruning.observed import Observed
from pruning.tokens import upload


@dataclass
class Pool(KeepPerImage):
    """Downsamples the grid of projected visual tokens: each token that enters is the mean of one cell.

    The cells are rectangles of nearly equal size: bands of rows, each cut into nearly equally many parts, so that every
    `keep` is met exactly; 64 of a 24x24 grid is 3x3 pooling. Where the visual tokens are not one raster (LLaVA-NeXT's
    crops), each cell is a run of tokens. Positions are re-packed; with mRoPE a token takes the middle of its cell.

    Parameters:
        keep: cells of every image.
    """

    name: ClassVar[str] = "pool"

    def select(self, seen: Observed) -> Tensor | Merged:
        count = seen.num_visual
        if self.keep == count:
            return torch.arange(count, device=seen.device).expand(seen.num_images, -1)
        cells, middles = pooling_cells(self.keep, *(seen.grid or (1, count)))
        cells_N = upload(cells, seen.device)
        inside_KN = cells_N == torch.arange(self.keep, device=seen.device)[:, None]
        tokens_BND = wide(seen.projected_BND)
        weights_KN = inside_KN.to(tokens_BND.dtype)
        pooled_BKD = (weights_KN / weights_KN.sum(dim=1, keepdim=True)) @ tokens_BND
        places_BK = upload(middles, seen.device).expand(seen.num_images, -1)
        single_K = inside_KN.sum(dim=1) == 1
        numbers_BK = torch.where(single_K, places_BK, -1)
        return in_prompt(seen, pooled_BKD.to(seen.projected_BND.dtype), places_BK, numbers_BK)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0 if self.keep == sizes.visual_tokens else 2 * self.keep * sizes.visual_tokens * sizes.hidden


def pooling_cells(keep: int, rows: int, columns: int) -> tuple[list[int], list[int]]:
    """Cut a raster into `keep` cells.

    Returns:
        The cell of every token, and the token in the middle of every cell; cells are numbered row by row.
    """
    bands = round((keep * rows / columns) ** 0.5)
    bands = min(max(bands, -(-keep // columns), 1), rows, keep)
    cells, middles = [0] * (rows * columns), list[int]()
    for band, (top, bottom) in enumerate(_parts(rows, bands)):
        share = (band + 1) * keep // bands - band * keep // bands
        for left, right in _parts(columns, share):
            for row in range(top, bottom):
                for column in range(left, right):
                    cells[row * columns + column] = len(middles)
            middles.append((top + bottom - 1) // 2 * columns + (left + right - 1) // 2)
    return cells, middles


def _parts(length: int, count: int) -> list[tuple[int, int]]:
    """`count` consecutive ranges that make up 0..length."""
    return [(part * length // count, (part + 1) * length // count) for part in range(count)]
