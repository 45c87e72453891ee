"""How sure an accuracy is, and a difference: intervals of a share of correct answers, paired tests of two methods."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def accuracy_interval(
    correct: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of 0/1 answers, questions being the unit that is drawn again.

    Drawing n answers with replacement from n answers of which a share p is correct gives Binomial(n, p) correct ones,
    so all resamples are one vector of binomial draws. Where all or no answers are correct every resample is the same
    and the bootstrap has no width: there the Wilson score interval is given instead.

    Raises ValueError for no answers, or values other than 0 and 1.
    """
    answers = np.asarray(correct, dtype=float)
    if answers.size == 0 or not np.isin(answers, (0.0, 1.0)).all():
        raise ValueError("an accuracy interval needs at least one answer, each 0 (wrong) or 1 (correct)")
    n, right = answers.size, int(answers.sum())
    if right in (0, n):
        interval = stats.binomtest(right, n).proportion_ci(confidence_level=confidence, method="wilson")
        return float(interval.low), float(interval.high)
    means = np.random.default_rng(seed).binomial(n, right / n, size=resamples) / n
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def mcnemar(first: ArrayLike, second: ArrayLike) -> tuple[int, int, float]:
    """Exact McNemar test of two methods on the same questions (McNemar 1947, with the binomial distribution).

    Only questions that one method answers and the other does not tell them apart; if neither is better, each such
    question is a fair coin.

    Args:
        first, second: 0/1 answers in the same order of questions.

    Returns:
        Questions only the first answers, questions only the second answers, and the two-sided p-value (1 where there is
        no such question).

    Raises ValueError for unequal lengths, no answers, or values other than 0 and 1.
    """
    ours, theirs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if ours.shape != theirs.shape or ours.size == 0 or not np.isin([ours, theirs], (0.0, 1.0)).all():
        raise ValueError("a paired test needs the answers of both methods to the same questions, each 0 or 1")
    only_first, only_second = int((ours > theirs).sum()), int((theirs > ours).sum())
    differing = only_first + only_second
    return only_first, only_second, float(stats.binomtest(only_first, differing).pvalue) if differing else 1.0


def holm(p_values: ArrayLike) -> np.ndarray:
    """Holm's step-down correction (Holm 1979): p-values `[M]` that hold for all M tests together.

    Rejecting where the result is at most alpha keeps the chance of even one false rejection at alpha or below.
    """
    given = np.asarray(p_values, dtype=float)
    order = given.argsort(kind="stable")
    steps = np.arange(len(given), 0, -1)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * steps), 1.0)
    return corrected


def mean_intervals(
    values: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap intervals of the mean of every column, questions being the unit that is drawn again.

    All columns share the questions drawn, so intervals of several methods are of the same resamples.

    Args:
        values: `[questions, columns]`, finite.

    Returns:
        Lower and upper ends, float64 `[columns]` each.

    Raises ValueError for no questions or values that are not finite.
    """
    values_QC = np.asarray(values, dtype=float)
    if values_QC.ndim != 2 or len(values_QC) == 0 or not np.isfinite(values_QC).all():
        raise ValueError("intervals of means need at least one question and finite values, [questions, columns]")
    count = len(values_QC)
    drawn_RQ = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    means_RC = drawn_RQ.astype(float) @ values_QC / count
    low, high = np.quantile(means_RC, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high
