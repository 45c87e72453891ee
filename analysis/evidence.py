"""Evidence recall: the share of the visual tokens under the ground-truth evidence boxes that a method lets survive."""

from collections.abc import Sequence

import numpy as np
import torch

from pruning.models.vision import raster_cells, touched


def evidence_tokens(boxes: Sequence[Sequence[float]], rows: int, columns: int) -> np.ndarray:
    """Which visual tokens some box touches, by the same rule as the oracle's: bool `[rows * columns]`.

    Args:
        boxes: [x0, y0, x1, y1] in 0..1 of the image as the vision tower sees it.
        rows, columns: of the raster that the visual tokens form.
    """
    boxes_J4 = torch.tensor(np.array([list(box) for box in boxes], dtype=np.float32).reshape(-1, 4))
    return touched(raster_cells(rows, columns), boxes_J4).any(dim=0).numpy()


def recall(layers_per_token_N: np.ndarray, evidence_N: np.ndarray, layers: int) -> tuple[float, float]:
    """Share of the evidence tokens that enter a decoder layer.

    Args:
        layers_per_token_N: how many decoder layers each visual token enters; none comes back once it has left.
        evidence_N: bool, at least one True.
        layers: decoder layers.

    Returns:
        The mean over the layers, each weighing the same as it does in the budget, and the share at the last layer.

    Raises ValueError where no token is evidence.
    """
    if not evidence_N.any():
        raise ValueError("there is no evidence to recall: leave questions without evidence boxes out")
    entered = layers_per_token_N[evidence_N]
    return float(entered.mean() / layers), float((entered == layers).mean())
