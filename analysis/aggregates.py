"""Numbers of a benchmark that are no plain share of right answers, and how sure they are.

A benchmark's number depends on its questions through how many of each kind there are: so many wrong "yes", so many
pairs half right. Drawing questions again with replacement is drawing these counts from a multinomial distribution,
whatever the number of questions, and the benchmark's own formula is applied to every draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

# Counts `[..., kinds]`, and the kinds in that order, to values `[...]`.
Formula = Callable[[np.ndarray, Sequence[tuple[float | str, ...]]], np.ndarray]


# Counts in memory at a time.
MOST_DRAWN = 5_000_000


@dataclass(frozen=True)
class Value:
    """A number and the ends of its interval."""

    value: float
    low: float
    high: float


def interval(
    strata: Sequence[Sequence[tuple[float | str, ...]]],
    formula: Formula,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Value:
    """The mean over strata of a formula, with its percentile bootstrap interval; units are drawn again in each stratum.

    Args:
        strata: for each, the kind of every unit (a question, or questions that are scored together).
        formula: of one stratum.
        confidence, resamples, seed: of the bootstrap.

    Raises:
        ValueError: there is no stratum, or one without units.
    """
    if not strata or not all(strata):
        raise ValueError("an interval needs at least one unit in every stratum")
    rng = np.random.default_rng(seed)
    value, drawn_R = 0.0, np.zeros(resamples)
    for units in strata:
        kinds = sorted(set(units))
        number = {kind: place for place, kind in enumerate(kinds)}
        counts_K = np.bincount([number[unit] for unit in units], minlength=len(kinds))
        value += float(formula(counts_K, kinds)) / len(strata)
        step = max(1, MOST_DRAWN // len(kinds))
        for start in range(0, resamples, step):
            size = min(step, resamples - start)
            drawn_RK = rng.multinomial(len(units), counts_K / len(units), size=size)
            drawn_R[start : start + size] += formula(drawn_RK, kinds) / len(strata)
    low, high = np.quantile(drawn_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Value(value, float(low), float(high))


def mean(counts: np.ndarray, kinds: Sequence[tuple[float | str, ...]]) -> np.ndarray:
    """The mean of kinds that are numbers, `(score,)`."""
    return counts @ np.array([float(kind[0]) for kind in kinds]) / counts.sum(axis=-1)


def share(which: Callable[[str, str], bool]) -> Formula:
    """The share of units of which something holds, of kinds (said, truth)."""

    def formula(counts: np.ndarray, kinds: Sequence[tuple[float | str, ...]]) -> np.ndarray:
        return counts @ np.array([float(which(str(said), str(truth))) for said, truth in kinds]) / counts.sum(axis=-1)

    return formula


def precision(counts: np.ndarray, kinds: Sequence[tuple[float | str, ...]]) -> np.ndarray:
    """Of those said to be "yes" those that are, of kinds (said, truth); 0 where none is said to be."""
    said, right = _yes(counts, kinds, said=True), _yes(counts, kinds, said=True, true=True)
    return np.divide(right, said, out=np.zeros(np.shape(said)), where=said > 0)


def recall(counts: np.ndarray, kinds: Sequence[tuple[float | str, ...]]) -> np.ndarray:
    """Of those that are "yes" and were said to be "yes" or "no" those said to be "yes", of kinds (said, truth).

    POPE as lmms-eval counts it leaves out answers that are neither.
    """
    right = _yes(counts, kinds, said=True, true=True)
    asked = right + counts @ np.array([float(said == "no" and truth == "yes") for said, truth in kinds])
    return np.divide(right, asked, out=np.zeros(np.shape(asked)), where=asked > 0)


def f1(counts: np.ndarray, kinds: Sequence[tuple[float | str, ...]]) -> np.ndarray:
    """The harmonic mean of precision and recall, of kinds (said, truth)."""
    exact, found = precision(counts, kinds), recall(counts, kinds)
    both = exact + found
    return np.divide(2 * exact * found, both, out=np.zeros(np.shape(both)), where=both > 0)


def _yes(
    counts: np.ndarray, kinds: Sequence[tuple[float | str, ...]], said: bool = False, true: bool = False
) -> np.ndarray:
    return counts @ np.array(
        [float((not said or kind[0] == "yes") and (not true or kind[1] == "yes")) for kind in kinds]
    )


def paired_permutation(first: np.ndarray, second: np.ndarray, *, resamples: int = 9_999, seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test of two methods on the same questions (scipy.stats).

    If neither is better, which of a question's two values belongs to which method is a fair coin. Exact where there are
    fewer ways to toss them than `resamples`.

    Args:
        first, second: what each question adds to the two methods' numbers, in the same order.

    Raises:
        ValueError: different lengths, none, or values that are not finite.
    """
    ours, theirs = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if ours.shape != theirs.shape or ours.ndim != 1 or not ours.size or not np.isfinite([ours, theirs]).all():
        raise ValueError("a paired test needs finite values of both methods for the same questions, at least one")
    different = ours != theirs  # equal ones change nothing, whoever they belong to
    if not different.any():
        return 1.0
    result = stats.permutation_test(
        (ours[different], theirs[different]),
        lambda x, y, axis: (x - y).sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // int(different.sum())),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)
