import numpy as np
import pytest
from scipy import stats

from analysis.significance import accuracy_interval, holm, mcnemar


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


def test_mcnemar_counts_the_questions_that_only_one_method_answers() -> None:
    first, second = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1]), np.array([0, 0, 0, 0, 0, 0, 0, 1, 1])
    only_first, only_second, p = mcnemar(first, second)
    assert (only_first, only_second) == (6, 1)
    assert p == pytest.approx(2 * (1 + 7) / 2**7)  # both tails of 7 tosses of a fair coin
    assert mcnemar(second, first) == (1, 6, pytest.approx(p))
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_mcnemar_rejects_true_equality_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(0)
    rejected = [mcnemar(*(rng.random((2, 200)) < 0.6))[2] <= 0.05 for _ in range(400)]
    assert np.mean(rejected) <= 0.07


@pytest.mark.parametrize(("first", "second"), [([1], [1, 0]), ([], []), ([0.5], [1])])
def test_mcnemar_refuses_what_is_not_paired(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="same questions"):
        mcnemar(first, second)


def test_holm_by_hand_in_any_order() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.9, 0.8, 0.0]), [1.0, 1.0, 0.0])
    assert holm([]).tolist() == []


def test_holm_keeps_false_rejections_of_a_whole_family_rare_and_rejects_more_than_bonferroni() -> None:
    rng = np.random.default_rng(0)
    families = [(holm(rng.random(50)) <= 0.05).any() for _ in range(1000)]
    assert 0.03 < np.mean(families) < 0.07
    p_values = np.array([0.0001, 0.013, 0.02, 0.04])
    assert (holm(p_values) <= 0.05).sum() > (p_values * len(p_values) <= 0.05).sum()
