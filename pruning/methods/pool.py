"""Average pooling: a smaller grid of visual tokens, the bar that several published methods do not clear."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing.base import KeepPerImage, Role
from pruning.choosing.merging import in_prompt, wide
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes


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
    label: ClassVar[str] = "Pooling"
    role: ClassVar[Role] = "reference"

    def select(self, seen: Observed) -> Tensor | MergedTokens:
        count = seen.num_visual
        if self.keep == count:
            return torch.arange(count, device=seen.device).expand(seen.num_images, -1)
        cells_N, middles_K = pooling_cells(self.keep, *(seen.grid or (1, count)), seen.device)
        inside_KN = cells_N == torch.arange(self.keep, device=seen.device)[:, None]
        tokens_BND = wide(seen.projected_BND)
        weights_KN = inside_KN.to(tokens_BND.dtype)
        pooled_BKD = (weights_KN / weights_KN.sum(dim=1, keepdim=True)) @ tokens_BND
        places_BK = middles_K.expand(seen.num_images, -1)
        single_K = inside_KN.sum(dim=1) == 1
        numbers_BK = torch.where(single_K, places_BK, -1)
        members_BKN = inside_KN.expand(seen.num_images, -1, -1)
        return in_prompt(seen, pooled_BKD.to(seen.projected_BND.dtype), places_BK, numbers_BK, members_BKN)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0 if self.keep == sizes.visual_tokens else 2 * self.keep * sizes.visual_tokens * sizes.hidden


def pooling_cells(keep: int, rows: int, columns: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cut a raster into `keep` cells, numbered row by row.

    Returns:
        int64 `[rows * columns]`, the cell of every token, and int64 `[keep]`, the token in the middle of every cell.
    """
    bands = round((keep * rows / columns) ** 0.5)
    bands = min(max(bands, -(-keep // columns), 1), rows, keep)
    row_R1 = torch.arange(rows, device=device)[:, None]
    column_C = torch.arange(columns, device=device)
    cell_K = torch.arange(keep, device=device)

    band_R1 = _part(row_R1, rows, bands)
    first_R1, end_R1 = _start(band_R1, keep, bands), _start(band_R1 + 1, keep, bands)
    cells_RC = first_R1 + _part(column_C, columns, end_R1 - first_R1)

    band_K = _part(cell_K, keep, bands)
    first_K, end_K = _start(band_K, keep, bands), _start(band_K + 1, keep, bands)
    middle_row_K = (_start(band_K, rows, bands) + _start(band_K + 1, rows, bands) - 1) // 2
    place_K, share_K = cell_K - first_K, end_K - first_K
    middle_column_K = (_start(place_K, columns, share_K) + _start(place_K + 1, columns, share_K) - 1) // 2
    return cells_RC.flatten(), middle_row_K * columns + middle_column_K


def _start(part: Tensor, length: int, parts: int | Tensor) -> Tensor:
    """Where a part begins when `length` places are cut into so many nearly equal parts."""
    return part * length // parts


def _part(place: Tensor, length: int, parts: int | Tensor) -> Tensor:
    """Which of those parts a place is in."""
    return ((place + 1) * parts - 1) // length
