"""Which methods are worth their cost: the Pareto front."""

import numpy as np
from numpy.typing import ArrayLike


def on_front(cost: ArrayLike, value: ArrayLike) -> np.ndarray:
    """Which points no other beats: bool `[P]`.

    A point is beaten by one that costs no more and is worth no less, and is better in one of the two. Equal points are
    on the front together.

    Args:
        cost: `[P]`, less is better.
        value: `[P]`, more is better.

    Raises ValueError for unequal lengths or values that are no numbers.
    """
    cost_P, value_P = np.asarray(cost, dtype=float), np.asarray(value, dtype=float)
    if cost_P.shape != value_P.shape or cost_P.ndim != 1 or np.isnan(cost_P).any() or np.isnan(value_P).any():
        raise ValueError("a Pareto front needs one cost and one value for every point, all of them numbers")
    no_worse_PP = (cost_P <= cost_P[:, None]) & (value_P >= value_P[:, None])
    better_PP = (cost_P < cost_P[:, None]) | (value_P > value_P[:, None])
    return ~(no_worse_PP & better_PP).any(axis=1)
