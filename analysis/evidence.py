"""Evidence recall: the share of the visual tokens under the ground-truth evidence boxes that a method lets survive."""

import numpy as np


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
