"""Choices that several methods share, on tensors alone: stable top-k and the dropping of redundant tokens.

Everything is batched, deterministic (score descending, then index ascending) and free of host synchronisation: the
sizes are Python integers, so nothing on the device decides how many steps run.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

TOKENS_DROPPED_PER_ROUND = 8


def stable_top_k(scores_BN: Tensor, k: int) -> Tensor:
    """Indices of the `k` highest scores of every row.

    Args:
        scores_BN: floating point scores, any leading dimensions.
        k: number to keep, 0 <= k <= N.

    Returns:
        int64 `[B, k]`, ascending. Of equal scores the lower index is kept.

    Raises:
        ValueError: `k` lies outside 0..N.
    """
    count = scores_BN.shape[-1]
    if not 0 <= k <= count:
        raise ValueError(f"cannot keep {k} of {count} tokens: keep must lie between 0 and {count}")
    return rank(scores_BN)[..., :k].sort(dim=-1).values


def rank(scores_BN: Tensor) -> Tensor:
    """Indices of every row by score descending, then index ascending: int64 `[B, N]`."""
    return scores_BN.sort(dim=-1, descending=True, stable=True).indices


def drop_redundant(features_BNC: Tensor, ranked_BR: Tensor, keep: int) -> Tensor:
    """Thin out candidates until `keep` are left, most redundant first (VisPruner, arXiv 2412.01818, section 3.3).

    Each round splits the candidates by the parity of their place in the current order, drops up to eight of the even
    ones, those most cosine-similar to some odd one, and puts the surviving even ones (by falling similarity) before
    the odd ones. A round that has fewer than eight even candidates drops no more than it has, so that odd counts and
    small `keep` end at exactly `keep`.

    Args:
        features_BNC: features of all N tokens; half precision is compared in float32, everything else as it is.
        ranked_BR: int64 candidates, indices into N, in the order the rounds start from.
        keep: how many candidates remain, 0 <= keep <= R.

    Returns:
        int64 `[B, keep]`, ascending.

    Raises:
        ValueError: `keep` lies outside 0..R.
    """
    batch, count = ranked_BR.shape
    if not 0 <= keep <= count:
        raise ValueError(f"cannot keep {keep} of {count} candidates: keep must lie between 0 and {count}")
    if keep == 0:
        return ranked_BR[:, :0]
    if keep == count:
        return ranked_BR.sort(dim=-1).values

    similarity_BRR = cosine_similarity(
        features_BNC.gather(1, ranked_BR[..., None].expand(-1, -1, features_BNC.shape[-1]))
    )
    rows_B11 = torch.arange(batch, device=ranked_BR.device)[:, None, None]
    # Places in `ranked_BR`, not token indices: all rounds read one similarity matrix.
    places_BR = torch.arange(count, device=ranked_BR.device).expand(batch, -1)
    while (surplus := places_BR.shape[-1] - keep) > 0:
        even, odd = places_BR[:, 0::2], places_BR[:, 1::2]
        dropped = min(TOKENS_DROPPED_PER_ROUND, surplus, even.shape[-1])
        nearest = similarity_BRR[rows_B11, even[:, :, None], odd[:, None, :]].amax(dim=-1)
        places_BR = torch.cat([even.gather(1, rank(nearest)[:, dropped:]), odd], dim=-1)
    return ranked_BR.gather(1, places_BR).sort(dim=-1).values


def cosine_similarity(features_BNC: Tensor) -> Tensor:
    """Cosine of every pair of tokens, `[B, N, N]`, in float32 or, for float64 features, float64."""
    wide = features_BNC if features_BNC.dtype == torch.float64 else features_BNC.float()
    unit_BNC = normalize(wide, dim=-1)
    return unit_BNC @ unit_BNC.mT
