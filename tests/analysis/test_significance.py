import numpy as np
import pytest
from scipy import stats

from analysis.significance import accuracy_interval


@pytest.mark.parametrize(("n", "right"), [(600, 540), (100, 37), (30, 2)])
def test_interval_is_the_percentile_bootstrap_of_scipy(n: int, right: int) -> None:
    correct = np.arange(n) < right
    expected = stats.bootstrap(
        (correct.astype(float),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = accuracy_interval(correct, seed=0)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1.5 / n)
    assert low < right / n < high


def test_interval_covers_the_true_accuracy_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = []
    for sample in range(400):
        low, high = accuracy_interval(rng.random(300) < 0.7, resamples=1000, seed=sample)
        covered.append(low <= 0.7 <= high)
    assert 0.91 <= np.mean(covered) <= 0.98


def test_interval_has_width_even_where_every_answer_is_correct() -> None:
    low, high = accuracy_interval(np.ones(50))
    assert 0.9 < low < 0.95 and high == 1.0


def test_interval_narrows_with_more_questions_and_repeats_with_its_seed() -> None:
    few, many = (accuracy_interval(np.arange(n) % 4 > 0, seed=3) for n in (40, 4000))
    assert many[1] - many[0] < (few[1] - few[0]) / 5
    assert few == accuracy_interval(np.arange(40) % 4 > 0, seed=3)


@pytest.mark.parametrize("answers", [[], [0.5, 1.0], [np.nan]])
def test_what_is_no_answer_is_refused(answers: list[float]) -> None:
    with pytest.raises(ValueError, match="each 0"):
        accuracy_interval(answers)
