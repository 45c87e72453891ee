"""A benchmark's numbers and their intervals, against drawing questions one by one through the same metric."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import aggregates
from analysis.significance import accuracy_interval, mcnemar, mean_intervals
from experiments.benchmarking import metrics


def scored(**columns: Any) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    own = {"id": [str(row) for row in range(count)], "type": ["all"] * count, "stratum": ["all"] * count}
    own |= {"unit": [str(row) for row in range(count)], "prediction": [""] * count, "said": [None] * count}
    return pd.DataFrame(own | {"truth": [None] * count} | columns)


def drawn_one_by_one(
    rows: pd.DataFrame, value: Any, strata: str | None = None, draws: int = 300
) -> tuple[float, float]:
    """A bootstrap interval the long way: questions drawn with replacement, the metric taken of each draw."""
    rng = np.random.default_rng(1)
    groups = [rows] if strata is None else [group for _, group in rows.groupby(strata)]
    found = [
        np.mean([value(group.iloc[rng.integers(0, len(group), len(group))]) for group in groups]) for _ in range(draws)
    ]
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def f1(rows: pd.DataFrame) -> float:
    right = ((rows["said"] == "yes") & (rows["truth"] == "yes")).sum()
    wrong = ((rows["said"] == "yes") & (rows["truth"] == "no")).sum()
    missed = ((rows["said"] == "no") & (rows["truth"] == "yes")).sum()
    return float(2 * right / max(1, 2 * right + wrong + missed))


def popes(count: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = rng.choice(["yes", "no"], count)
    said = np.where(rng.random(count) < 0.75, truth, rng.choice(["yes", "no", "other"], count))
    stratum = np.array(["random", "popular", "adversarial"])[np.arange(count) % 3]
    return scored(said=said, truth=truth, stratum=stratum, score=(said == truth).astype(float), prediction=said)


@pytest.mark.parametrize("metric", ["f1", "f1_mean_of_splits"])
def test_f1_and_its_interval(metric: str) -> None:
    rows = popes()
    found = {name: value for name, _, value in metrics.measured("pope", rows)}[metric]
    strata = "stratum" if metric.endswith("splits") else None
    groups = [rows] if strata is None else [group for _, group in rows.groupby(strata)]
    assert found.value == pytest.approx(np.mean([f1(group) for group in groups]))
    assert (found.low, found.high) == pytest.approx(drawn_one_by_one(rows, f1, strata), abs=0.04)


def test_precision_and_recall_where_none_is_said_or_true() -> None:
    nothing = scored(said=["no", "other"], truth=["no", "no"], score=[1.0, 0.0], prediction=["no", "hm"])
    found = {name: value.value for name, _, value in metrics.measured("pope", nothing)}
    assert (found["precision"], found["recall"], found["f1"], found["yes_ratio"]) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("Yes", "yes"),
        ("No, there is not.", "no"),
        ("There is no dog", "no"),
        ("The image shows nothing. No dog.", "yes"),  # only the first sentence counts
        ("Nobody", "yes"),  # whole words only
        ("NO", "yes"),  # as written in LLaVA's evaluation: No, not, no
    ],
)
def test_llavas_reading_of_pope(text: str, reading: str) -> None:
    assert metrics.llava_reading(text) == reading


def test_mme_sums_categories_of_pairs() -> None:
    """existence: 200 and 50, mean 125; count: 0; so 125 of perception and 200 of cognition."""
    rows = scored(
        score=[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0],
        unit=["1", "1", "2", "2", "1", "1", "9", "9"],
        stratum=["existence"] * 4 + ["count"] * 2 + ["code_reasoning"] * 2,
    )
    found = {name: value for name, _, value in metrics.measured("mme", rows)}
    assert found["perception"].value == 125 and found["cognition"].value == 200
    # Of existence's two images both may be the first or the second; count has but one.
    assert (found["perception"].low, found["perception"].high) == (50, 200)


def test_circular_wants_every_turn_right() -> None:
    rows = scored(score=[1.0, 0.0, 1.0, 1.0, 1.0], unit=["1", "1", "2", "2", "3"])
    found = {name: value.value for name, _, value in metrics.measured("mmbench_en_dev_static", rows)}
    assert found == {"circular": pytest.approx(2 / 3), "accuracy": 0.8}


def test_a_mean_of_categories_weighs_them_alike() -> None:
    rows = scored(score=[1.0, 1.0, 1.0, 0.0], stratum=["a", "a", "a", "b"], type=["x", "x", "y", "y"])
    found = {name: value.value for name, _, value in metrics.measured("mmstar", rows)}
    assert found == {"mean_of_categories": 0.5, "mean_of_six": 0.75}


def test_fractional_scores_have_the_interval_of_a_mean() -> None:
    scores = np.random.default_rng(0).choice([0, 0.3, 0.6, 0.9, 1], 200)
    ((_, n, value),) = metrics.measured("textvqa_val", scored(score=scores))
    low, high = mean_intervals(scores[:, None])
    assert n == 200 and value.value == pytest.approx(scores.mean())
    assert (value.low, value.high) == pytest.approx((low[0], high[0]), abs=0.01)


def test_right_and_wrong_have_the_interval_of_an_accuracy() -> None:
    """Also where all are right, which a bootstrap has no width for."""
    for scores in ([1.0] * 30, [1.0] * 20 + [0.0] * 10):
        ((_, _, value),) = metrics.measured("gqa", scored(score=scores))
        assert (value.low, value.high) == accuracy_interval(scores)


def test_many_kinds_and_many_questions_stay_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [(value,) for value in np.random.default_rng(0).random(400)]
    whole = aggregates.interval([values], aggregates.mean)
    monkeypatch.setattr(aggregates, "MOST_DRAWN", 4000)  # ten draws at a time
    assert aggregates.interval([values], aggregates.mean) == whole


def test_questions_without_a_score_are_left_out() -> None:
    ((_, n, value),) = metrics.measured("gqa", scored(score=[1.0, None, 0.0]))
    assert (n, value.value) == (2, 0.5)
    assert list(metrics.measured("gqa", scored(score=[None, None]))) == []


def test_the_permutation_test_is_exact_on_few_questions() -> None:
    """Three differences of one sign: of eight ways to toss them two are as far off."""
    first, second = np.array([0.9, 0.6, 1.0, 0.3]), np.array([0.6, 0.3, 0.9, 0.3])
    assert aggregates.paired_permutation(first, second) == pytest.approx(2 / 8)
    assert aggregates.paired_permutation(second, first) == pytest.approx(2 / 8)
    assert aggregates.paired_permutation(first, first) == 1


def test_the_permutation_test_agrees_with_mcnemar_on_right_and_wrong() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.random((2, 300)) < [[0.7], [0.6]]).astype(float)
    assert aggregates.paired_permutation(first, second) == pytest.approx(mcnemar(first, second)[2], abs=0.02)


def test_the_permutation_test_refuses_what_is_not_paired() -> None:
    for first, second in (([1.0], [1.0, 0.0]), ([], []), ([np.nan], [1.0])):
        with pytest.raises(ValueError, match="a paired test needs finite values"):
            aggregates.paired_permutation(np.array(first), np.array(second))


@pytest.mark.parametrize("benchmark", ["mme", "mmbench_en_dev_static", "mmstar", "textvqa_val"])
def test_contributions_add_up_to_what_the_table_shows(benchmark: str) -> None:
    rng = np.random.default_rng(0)
    rows = scored(
        score=(rng.random(40) < 0.6).astype(float),
        unit=[str(row // 2) for row in range(40)],
        stratum=[["count", "color"][row % 4 // 2] for row in range(40)],
    )
    name, parts = metrics.contributions(benchmark, rows)
    shown = {metric: value.value for metric, _, value in metrics.measured(benchmark, rows)}
    assert parts.sum() == pytest.approx(shown[name])
