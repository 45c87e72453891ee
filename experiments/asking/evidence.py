"""The visual tokens under a question's evidence boxes."""

from collections.abc import Sequence

import numpy as np
import torch

from pruning.models.vision import raster_cells, touched


def evidence_of(boxes: Sequence[Sequence[float]], visual_tokens: int) -> list[int] | None:
    """Numbers of the visual tokens that some box touches, ascending; None where they form no square raster."""
    side = round(visual_tokens**0.5)
    if side**2 != visual_tokens:
        return None
    return np.flatnonzero(evidence_tokens(boxes, side, side)).tolist()


def evidence_tokens(boxes: Sequence[Sequence[float]], rows: int, columns: int) -> np.ndarray:
    """Which visual tokens some box touches, by the same rule as the oracle's: bool `[rows * columns]`.

    Args:
        boxes: [x0, y0, x1, y1] in 0..1 of the image as the vision tower sees it.
        rows, columns: of the raster that the visual tokens form.
    """
    boxes_J4 = torch.tensor(np.array([list(box) for box in boxes], dtype=np.float32).reshape(-1, 4))
    return touched(raster_cells(rows, columns), boxes_J4).any(dim=0).numpy()
