"""How far methods agree about the visual tokens of an image: rank correlation of scores, overlap of what is kept."""

import numpy as np
from scipy import stats


def rank_correlation(scores_QMN: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of M scores over the N visual tokens of every question, ties at their mean rank.

    Returns:
        float64 `[Q, M, M]`, NaN for a score that is the same for all tokens of a question.
    """
    ranks_QMN = stats.rankdata(scores_QMN, axis=-1)
    ranks_QMN = ranks_QMN - ranks_QMN.mean(axis=-1, keepdims=True)
    length_QM1 = np.linalg.norm(ranks_QMN, axis=-1, keepdims=True)
    unit_QMN = np.divide(ranks_QMN, length_QM1, out=np.full_like(ranks_QMN, np.nan), where=length_QM1 > 0)
    return unit_QMN @ unit_QMN.swapaxes(1, 2)


def overlap(shares_QMN: np.ndarray) -> np.ndarray:
    """Overlap of what M methods keep of the N visual tokens of every question.

    The sum of the smaller share of every token over the sum of the larger (Ruzicka's similarity). Where methods keep a
    token in all layers or in none, it is the Jaccard index of the kept sets.

    Args:
        shares_QMN: the share of the decoder layers that each token enters, at least 0.

    Returns:
        float64 `[Q, M, M]`, NaN where neither method keeps any token.
    """
    matrices = []
    for shares_MN in np.asarray(shares_QMN, dtype=float):
        smaller_MM = np.minimum(shares_MN[:, None], shares_MN[None]).sum(axis=-1)
        larger_MM = np.maximum(shares_MN[:, None], shares_MN[None]).sum(axis=-1)
        matrices.append(np.divide(smaller_MM, larger_MM, out=np.full_like(larger_MM, np.nan), where=larger_MM > 0))
    return np.stack(matrices)
