"""How sure an accuracy is: intervals of a share of correct answers."""

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
