import numpy as np
import pytest
from scipy import stats

from analysis.agreement import overlap, rank_correlation


def test_rank_correlation_is_that_of_scipy_with_ties() -> None:
    rng = np.random.default_rng(0)
    scores = np.stack([rng.integers(0, 5, (3, 30)), rng.integers(0, 2, (3, 30)), rng.random((3, 30))], axis=1)
    matrices = rank_correlation(scores)
    for question in range(3):
        expected = stats.spearmanr(scores[question], axis=1).statistic
        np.testing.assert_allclose(matrices[question], expected, atol=1e-12)


def test_a_score_that_is_the_same_everywhere_has_no_correlation() -> None:
    (matrix,) = rank_correlation(np.array([[[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [9.0, 4.0, 1.0]]]))
    assert np.isnan(matrix[0]).all() and np.isnan(matrix[:, 0]).all()
    assert matrix[1, 2] == pytest.approx(-1)


def test_overlap_is_the_jaccard_index_of_sets_and_weighs_layers() -> None:
    # Tokens 0, 1 and 1, 2 in all layers; token 1 in half of them; nothing at all.
    shares = np.array([[[1, 1, 0, 0], [0, 1, 1, 0], [0, 0.5, 0, 0], [0, 0, 0, 0]]])
    (matrix,) = overlap(shares)
    assert matrix[0, 1] == pytest.approx(1 / 3)
    assert matrix[0, 2] == pytest.approx(0.5 / 2)
    assert matrix[0, 3] == 0 and np.isnan(matrix[3, 3]) and matrix[2, 2] == 1
    np.testing.assert_array_equal(matrix, matrix.T)
