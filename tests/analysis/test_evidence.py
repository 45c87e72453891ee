import numpy as np
import pytest
from scipy import stats

from analysis.evidence import recall
from analysis.significance import mean_intervals


def test_recall_over_the_layers_and_at_the_last() -> None:
    evidence = np.array([True, True, True, True, False])
    # Of four evidence tokens one stays to the end, one leaves after two of eight layers, two never enter.
    assert recall(np.array([8, 2, 0, 0, 8]), evidence, layers=8) == (pytest.approx(10 / 32), 0.25)
    assert recall(np.full(5, 8), evidence, layers=8) == (1.0, 1.0)
    with pytest.raises(ValueError, match="no evidence"):
        recall(np.full(5, 8), np.zeros(5, dtype=bool), layers=8)


def test_intervals_of_means_are_the_percentile_bootstrap_of_scipy() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.random(200), rng.random(200) ** 4, np.ones(200)], axis=1)
    low, high = mean_intervals(values, confidence=0.9, resamples=4000)
    for column in range(2):
        expected = stats.bootstrap(
            (values[:, column],), np.mean, confidence_level=0.9, n_resamples=4000, method="percentile", rng=1
        ).confidence_interval
        assert (low[column], high[column]) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert low[2] == high[2] == 1


def test_columns_share_the_questions_drawn() -> None:
    values = np.random.default_rng(0).random((50, 1))
    low, high = mean_intervals(np.concatenate([values, values, 1 - values], axis=1), resamples=500)
    assert low[0] == low[1] and high[0] == high[1]
    assert low[2] == pytest.approx(1 - high[0])


@pytest.mark.parametrize("values", [np.empty((0, 2)), [[np.nan]], [1.0, 0.0]])
def test_what_is_no_table_of_values_is_refused(values: object) -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_intervals(values)
