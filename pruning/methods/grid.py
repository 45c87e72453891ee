"""A uniform grid: spreads the kept tokens evenly over the image without looking at it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pruning.choosing.base import KeepPerImage, Role
from pruning.engine.seen import Observed
from pruning.engine.tokens import upload
from pruning.models.sizes import Sizes


@dataclass
class Grid(KeepPerImage):
    """Evenly spaced rows, and evenly spaced tokens in each of them.

    Where the visual tokens are not one raster (LLaVA-NeXT's base crop and unpadded crops), every N/keep-th token.

    Parameters:
        keep: tokens kept of every image; exactly so many, also where no regular grid has that number.
    """

    name: ClassVar[str] = "grid"
    label: ClassVar[str] = "Grid"
    role: ClassVar[Role] = "reference"

    def select(self, seen: Observed) -> Tensor:
        if seen.grid is None:
            kept = _spread(self.keep, seen.num_visual)
        else:
            kept = _lattice(self.keep, *seen.grid)
        return upload(kept, seen.device).expand(seen.num_images, -1)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


def _lattice(keep: int, rows: int, columns: int) -> list[int]:
    """Indices into a raster: as many rows as give a spacing alike in both directions, `keep` shared out over them."""
    used = round((keep * rows / columns) ** 0.5)
    used = min(max(used, -(-keep // columns), 1), rows, keep)
    kept = []
    for number, row in enumerate(_spread(used, rows)):
        share = (number + 1) * keep // used - number * keep // used
        kept += [row * columns + column for column in _spread(share, columns)]
    return kept


def _spread(count: int, length: int) -> list[int]:
    """`count` places out of `length`, each in the middle of its share."""
    return [(2 * place + 1) * length // (2 * count) for place in range(count)]
