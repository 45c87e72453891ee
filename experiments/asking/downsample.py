"""The baseline without any method: an image of so few pixels that it has as many visual tokens as a budget allows.

Its questions are answered by the unpruned model. Those that it gets wrong are the difficult ones of VTC-Bench (arXiv
2510.07143): what a method is right about there it owes to its choice of tokens, not to the budget being easy.
"""

import math
from typing import Any

from datasets import Dataset
from PIL.Image import Resampling
from transformers import ProcessorMixin

NAME = "downsample"
TOLERANCE = 0.1  # of the tokens asked for, within which the aspect of the image decides
FARTHEST = 0.2  # of the tokens asked for; what is farther off has missed the budget


def token_side(processor: ProcessorMixin) -> int:
    """Pixels a side of one visual token.

    Raises ValueError for a model whose images do not become fewer tokens as they get smaller.
    """
    pixels = processor.image_processor
    if not hasattr(pixels, "merge_size"):
        raise ValueError(
            "downsample needs a model that has fewer visual tokens for smaller images, such as Qwen2.5-VL; this one "
            "scales every image to the same size: set downsample to false"
        )
    return int(pixels.patch_size * pixels.merge_size)


def fewest_tokens(processor: ProcessorMixin) -> int:
    """Tokens of the smallest image that the processor leaves as it is; what is smaller it scales up."""
    return math.ceil(processor.image_processor.size["shortest_edge"] / token_side(processor) ** 2)


def grid_for(columns: int, rows: int, budget: float, fewest: int = 1) -> tuple[int, int]:
    """Columns and rows of a grid of about budget x columns x rows tokens, in about the same proportion.

    Args:
        columns, rows: of the image's own grid.
        budget: share of its tokens, in 0..1.
        fewest: tokens that the grid must have.
    """
    asked = budget * columns * rows
    grids = [(max(round(asked / height), math.ceil(fewest / height), 1), height) for height in range(1, rows + 1)]
    grids += [(width, max(round(asked / width), math.ceil(fewest / width), 1)) for width in range(1, columns + 1)]

    def off(grid: tuple[int, int]) -> float:
        return abs(grid[0] * grid[1] - asked) / asked

    def askew(grid: tuple[int, int]) -> float:
        return abs(math.log(grid[0] / grid[1] * rows / columns))

    near = [grid for grid in grids if off(grid) <= TOLERANCE]
    if near:
        return min(near, key=lambda grid: (askew(grid), off(grid), grid))
    return min(grids, key=lambda grid: (off(grid), askew(grid), grid))


def downsampled(benchmark: Dataset, budget: float, processor: ProcessorMixin) -> Dataset:
    """The benchmark with every image scaled down to `budget` of its visual tokens, or as near as its grid comes.

    Raises ValueError as `token_side`.
    """
    side, fewest = token_side(processor), fewest_tokens(processor)

    def smaller(row: dict[str, Any]) -> dict[str, Any]:
        image = row["image"]
        columns, rows = (max(1, round(pixels / side)) for pixels in image.size)
        grid = grid_for(columns, rows, budget, fewest)
        return {"image": image.resize((grid[0] * side, grid[1] * side), Resampling.BICUBIC)}

    return benchmark.map(smaller, keep_in_memory=True)
