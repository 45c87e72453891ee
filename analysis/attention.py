"""Attention to the visual tokens, reduced to column statistics while the model prefills.

The queries and keys of every decoder layer are caught as the layer projects them; a few query rows at a time become
attention and are reduced at once, before the next layer runs. The largest map in memory is heads x chunk x length,
whatever the number of samples, and sdpa or flash attention stays on in the model.

Kinds (VisPruner's analysis, arXiv 2412.01818), with A the post-softmax attention over the whole prompt, mean over
heads, and j a visual token:

- `image`: sum of A[i, j] over visual queries i / number of visual queries that can see j (N, N-1, ... 1).
- `text`: mean of A[i, j] over text queries i, those after the last visual token (each of them sees every visual
  token).
- `full`: sum of A[i, j] over all queries i / number of queries that can see j.
- `last`: A[i, j] of the last prompt token i.
- `equi_last`: as `last` with the RoPE decay removed: the same layer input, hence the same content of query and
  keys, but neither is rotated, as if every key stood at relative position 0. Text keys take part in the softmax as
  before.
- `cls`: the [CLS] row of the vision layer that feeds the projector (softmax over [CLS] and patches, then without the
  column of [CLS]). Towers without [CLS] give the mean attention that each patch receives, merged as the tower does.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from analysis.dispersion import Dispersion

KINDS = ("image", "text", "full", "last", "equi_last", "cls")
SCORES = ("last", "equi_last", "cls")  # the kinds that methods rank tokens by


def quartile_shares(profile_N: np.ndarray) -> np.ndarray:
    """Share `[4]` of the attention that each quarter of the visual tokens gets, first tokens first; sums to 1."""
    edges = np.arange(4) * len(profile_N) // 4
    return np.add.reduceat(profile_N, edges) / profile_N.sum()


def selected(rows_BN: Tensor, keep: int) -> Tensor:
    """Which tokens the `keep` highest values of each row pick, equal values by index: bool `[B, N]`."""
    order = rows_BN.argsort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(rows_BN, dtype=torch.bool).scatter(1, order[:, :keep], True)


class AttentionSums:
    """Everything the attention figures need, summed over samples: its size depends on the model alone.

    Holds the mean of every kind by layer and token; and for each of `SCORES` (of decoder layer `layer`, or `cls`) its
    dispersion and how often each token is among the `keep` highest.
    """

    def __init__(self, layer: int, keep: int) -> None:
        self.layer, self.keep = layer, keep
        self.samples = 0
        self.totals: dict[str, np.ndarray] = {}
        self.selections: dict[str, np.ndarray] = {}
        self.dispersions: dict[str, Dispersion] = {}

    def add(self, statistics: Mapping[str, Tensor]) -> None:
        """Add one batch of `prefill_statistics`; ValueError if its shapes differ from the first batch's."""
        for kind, values_BLN in statistics.items():
            total = values_BLN.double().sum(0).cpu().numpy()
            if kind in self.totals and self.totals[kind].shape != total.shape:
                raise ValueError(
                    f"expected {self.totals[kind].shape[1]} visual tokens as in the samples before, "
                    f"got {total.shape[1]}; resize the images to one size"
                )
            self.totals[kind] = self.totals.get(kind, 0.0) + total
        for score in SCORES:
            rows_BN = statistics[score][:, 0 if score == "cls" else self.layer]
            self.dispersions.setdefault(score, Dispersion(rows_BN.shape[1])).add(rows_BN)
            counts = selected(rows_BN, self.keep).sum(0).cpu().numpy()
            self.selections[score] = self.selections.get(score, 0) + counts
        self.samples += len(statistics["last"])

    def arrays(self) -> dict[str, np.ndarray]:
        """For an npz: `mean/KIND` `[layers, N]`, `selected/SCORE` `[N]` in 0..1, `dispersion/SCORE/...`, scalars."""
        arrays = {name: np.array(getattr(self, name)) for name in ("layer", "keep", "samples")}
        arrays |= {f"mean/{kind}": total / self.samples for kind, total in self.totals.items()}
        arrays |= {f"selected/{score}": counts / self.samples for score, counts in self.selections.items()}
        for score, dispersion in self.dispersions.items():
            arrays |= {f"dispersion/{score}/{name}": array for name, array in dispersion.arrays().items()}
        return arrays
