"""Choices that several methods share, on tensors alone: stable top-k, redundancy, diversity.

Everything is batched, deterministic (score descending, then index ascending) and free of host synchronisation: the
sizes are Python integers, so nothing on the device decides how many steps run. Where all pairs of an image's tokens are
compared, images go through in groups, so that the memory for thousands of tokens does not grow with the batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

TOKENS_DROPPED_PER_ROUND = 8
# Pairs of tokens held at a time, 256 MiB in float32: those of 202 images of 576 tokens, of one image of 8192.
PAIRS_AT_A_TIME = 2**26


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
    count = ranked_BR.shape[1]
    if not 0 <= keep <= count:
        raise ValueError(f"cannot keep {keep} of {count} candidates: keep must lie between 0 and {count}")
    if keep == 0:
        return ranked_BR[:, :0]
    if keep == count:
        return ranked_BR.sort(dim=-1).values

    candidates_BRC = features_BNC.gather(1, ranked_BR[..., None].expand(-1, -1, features_BNC.shape[-1]))
    places_BK = by_groups(lambda group_BRC: _after_rounds(group_BRC, keep), count**2, candidates_BRC)
    return ranked_BR.gather(1, places_BK).sort(dim=-1).values


def _after_rounds(candidates_BRC: Tensor, keep: int) -> Tensor:
    """Places `[B, keep]` of the candidates that are left. All rounds read one similarity matrix."""
    batch, count = candidates_BRC.shape[:2]
    similarity_BSS = cosine_similarity(candidates_BRC)
    rows_B11 = torch.arange(batch, device=similarity_BSS.device)[:, None, None]
    # The candidates behind the rows of the matrix, and the rows that are left, in the order of the round.
    behind_BS = left_BR = torch.arange(count, device=similarity_BSS.device).expand(batch, -1)
    while (surplus := left_BR.shape[1] - keep) > 0:
        if 2 * left_BR.shape[1] <= behind_BS.shape[1]:
            similarity_BSS = similarity_BSS[rows_B11, left_BR[:, :, None], left_BR[:, None, :]]
            behind_BS = behind_BS.gather(1, left_BR)
            left_BR = torch.arange(left_BR.shape[1], device=left_BR.device).expand(batch, -1)
        even, odd = left_BR[:, 0::2], left_BR[:, 1::2]
        dropped = min(TOKENS_DROPPED_PER_ROUND, surplus, even.shape[1])
        # Entire rows are copied and columns left out afterwards: single elements take longer to fetch.
        nearest = _rows(similarity_BSS, odd).amax(dim=1).gather(1, even)
        left_BR = torch.cat([even.gather(1, rank(nearest)[:, dropped:]), odd], dim=1)
    return behind_BS.gather(1, left_BR)


def max_min_diversity(features_BNC: Tensor, keep: int) -> Tensor:
    """Tokens far from one another: each pick is the farthest from its nearest pick (DivPrune, arXiv 2503.02175).

    The first pick is the token farthest from its own nearest neighbour. Distance is 1 - cosine. A token is picked once
    even if its features repeat; of equally far tokens the lower index goes first.

    Args:
        features_BNC: features; half precision is compared in float32.
        keep: number of picks, 1 <= keep <= N.

    Returns:
        int64 `[B, keep]` in the order of the picks.

    Raises:
        ValueError: `keep` lies outside 1..N.
    """
    count = features_BNC.shape[1]
    if not 1 <= keep <= count:
        raise ValueError(f"cannot pick {keep} of {count} tokens: keep must lie between 1 and {count}")
    return by_groups(lambda group_BNC: _farthest(group_BNC, keep), count**2, features_BNC)


def _farthest(features_BNC: Tensor, keep: int) -> Tensor:
    distance_BNN = cosine_similarity(features_BNC).neg_().add_(1)
    # The nearest entry of a row is the token itself.
    gain_BN = distance_BNN.topk(min(2, features_BNC.shape[1]), dim=2, largest=False).values[..., -1]
    nearest_BN = torch.full_like(gain_BN, float("inf"))
    picks = []
    for _ in range(keep):
        pick_B1 = gain_BN.argmax(dim=1, keepdim=True)
        picks.append(pick_B1)
        # What is picked stays at -inf.
        nearest_BN = nearest_BN.minimum(_rows(distance_BNN, pick_B1)[:, 0]).scatter(1, pick_B1, float("-inf"))
        gain_BN = nearest_BN
    return torch.cat(picks, dim=1)


def greedy_dpp(kernel_BNN: Tensor, keep: int) -> Tensor:
    """Greedy MAP of a determinantal point process: each pick multiplies the determinant most (arXiv 1709.05135).

    Keeps the incremental Cholesky factor, so a pick costs O(picks x N). Beyond the rank of the kernel, where every
    further determinant is 0, the remaining picks follow the gains that rounding leaves; no token is picked twice.

    Args:
        kernel_BNN: positive semi-definite kernels, float32 or float64.
        keep: number of picks, 1 <= keep <= N.

    Returns:
        int64 `[B, keep]` in the order of the picks.

    Raises:
        ValueError: `keep` lies outside 1..N.
    """
    batch, count = kernel_BNN.shape[:2]
    if not 1 <= keep <= count:
        raise ValueError(f"cannot pick {keep} of {count} tokens: keep must lie between 1 and {count}")
    gain_BN = kernel_BNN.diagonal(dim1=1, dim2=2)
    # A gain below this is rounding error, the picks so far span the kernel: dividing by it would only amplify noise.
    smallest_B1 = torch.finfo(gain_BN.dtype).eps * gain_BN.amax(dim=1, keepdim=True)
    factor_BKN = kernel_BNN.new_zeros(batch, keep, count)
    picked_BN = torch.zeros_like(gain_BN, dtype=torch.bool)
    picks = []
    for step in range(keep):
        pick_B1 = gain_BN.masked_fill(picked_BN, float("-inf")).argmax(dim=1, keepdim=True)
        picks.append(pick_B1)
        picked_BN = picked_BN.scatter(1, pick_B1, True)
        before_BKN = factor_BKN[:, :step]
        at_pick_B1K = before_BKN.gather(2, pick_B1[:, None].expand(-1, step, -1)).mT
        row_BN = (_rows(kernel_BNN, pick_B1) - at_pick_B1K @ before_BKN)[:, 0]
        gain_B1 = gain_BN.gather(1, pick_B1)
        row_BN = torch.where(gain_B1 > smallest_B1, row_BN * gain_B1.rsqrt(), 0)
        factor_BKN[:, step] = row_BN
        gain_BN = (gain_BN - row_BN**2).clamp(min=0)
    return torch.cat(picks, dim=1)


def by_groups(choose: Callable[..., Tensor], pairs: int, *values_B: Tensor) -> Tensor:
    """What `choose` makes of a batch, in groups of images that together have at most `PAIRS_AT_A_TIME` pairs.

    Args:
        choose: takes as many tensors as there are in `values_B`, with a batch axis.
        pairs: pairs of tokens that it holds for every image.
        values_B: split into groups along the batch axis.
    """
    images = max(1, PAIRS_AT_A_TIME // pairs)
    groups = zip(*(values.split(images) for values in values_B), strict=True)
    return torch.cat([choose(*group) for group in groups])


def _rows(matrix_BNN: Tensor, index_BK: Tensor) -> Tensor:
    """Rows `[B, K, N]`."""
    batch, count, width = matrix_BNN.shape
    start_B1 = torch.arange(0, batch * count, count, device=matrix_BNN.device)[:, None]
    rows = matrix_BNN.reshape(-1, width).index_select(0, (index_BK + start_B1).flatten())
    return rows.view(batch, -1, width)


def cosine_similarity(features_BNC: Tensor) -> Tensor:
    """Cosine of every pair of tokens, `[B, N, N]`, in float32 or, for float64 features, float64."""
    wide = features_BNC if features_BNC.dtype == torch.float64 else features_BNC.float()
    unit_BNC = normalize(wide, dim=-1)
    return unit_BNC @ unit_BNC.mT
