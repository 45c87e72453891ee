"""How spread out an attention row is over the visual tokens: mean CDF and density, from streamed sums.

VisPruner's analysis (arXiv 2412.01818): the CDF is the mean over samples of cumsum(sorted descending / sum); the
density is the histogram of all values divided by the largest of them. The largest is known only after the last
sample, so values are first counted in `FINE_BINS` fixed bins over [0, 1], where every post-softmax attention lies,
and put into the few bins of the figure at the end: memory does not grow with samples, and a value moves to a
neighbouring bin of the figure only if it lies within 1 / FINE_BINS of the edge.
"""

import numpy as np
import torch
from torch import Tensor

FINE_BINS = 2**20


class Dispersion:
    """Streaming sums over attention rows of one kind (such as the last query's) to `num_visual` tokens."""

    def __init__(self, num_visual: int) -> None:
        self.samples = 0
        self.largest = 0.0
        self.cdf_sum = np.zeros(num_visual)
        self.counts = np.zeros(FINE_BINS, dtype=np.int64)

    def add(self, rows_BN: Tensor) -> None:
        """Add post-softmax attention rows `[B, N]` (any floating dtype, values in 0..1, each with a positive sum)."""
        rows = rows_BN.detach().double().cpu()
        totals = rows.sum(-1, keepdim=True)
        if rows.shape[-1] != len(self.cdf_sum):
            raise ValueError(f"expected rows over {len(self.cdf_sum)} visual tokens, got {rows.shape[-1]}")
        if not bool((totals > 0).all()) or float(rows.min()) < 0 or float(rows.max()) > 1:
            raise ValueError("attention rows must lie in 0..1 and not be all zero; pass post-softmax attention")
        self.cdf_sum += (rows / totals).sort(-1, descending=True).values.cumsum(-1).sum(0).numpy()
        fine = (rows * FINE_BINS).long().clamp(max=FINE_BINS - 1)
        self.counts += torch.bincount(fine.flatten(), minlength=FINE_BINS).numpy()
        self.largest = max(self.largest, float(rows.max()))
        self.samples += rows.shape[0]

    def arrays(self) -> dict[str, np.ndarray]:
        """The state as arrays for an npz: `cdf` [N] (mean over samples), `counts` [FINE_BINS], `largest` []."""
        return {"cdf": self.cdf_sum / self.samples, "counts": self.counts, "largest": np.array(self.largest)}


def density(counts: np.ndarray, largest: float, bins: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Density of attention / largest attention.

    Args:
        counts: `[FINE_BINS]` values counted in equal bins over 0..1.
        largest: the largest value counted, in 0..1.
        bins: equal bins over 0..1 of value / largest.
    Returns:
        bin centres `[bins]` and density `[bins]`, which integrates to 1 over 0..1.
    """
    centres = (np.arange(len(counts)) + 0.5) / len(counts)
    coarse = np.minimum((centres / largest * bins).astype(np.int64), bins - 1)
    totals = np.bincount(coarse, weights=counts, minlength=bins)
    return (np.arange(bins) + 0.5) / bins, totals / totals.sum() * bins


def resample_cdf(cdf: np.ndarray, bins: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The CDF at `bins` equal shares of the visual tokens (highest attention first), linear between tokens.

    Args:
        cdf: `[N]` share of the attention held by the top 1, 2, ... N tokens.
    Returns:
        share of tokens `[bins]`, ending at 1, and share of attention `[bins]`.
    """
    share = np.arange(1, bins + 1) / bins
    tokens = np.arange(len(cdf) + 1) / len(cdf)
    return share, np.interp(share, tokens, np.concatenate([[0.0], cdf]))
