"""The numbers of each benchmark, of scored answers: what lmms-eval reports, and what papers report beside it.

All are shares in 0..1 but MME's, which are points; `UNIT` says so. A mean over strata takes every stratum at the same
weight, and draws again inside each.
"""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from analysis import aggregates
from analysis.aggregates import Value
from analysis.significance import accuracy_interval
from experiments.benchmarking.named import BENCHMARKS

Measure = Callable[[pd.DataFrame], Value | None]
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
# Points at most: of MME's 10 and 4 categories 200 each.
MOST = {"perception": 2000.0, "cognition": 800.0}
UNIT = {"perception": "points", "cognition": "points"}
NEGATIONS = {"No", "not", "no"}


def measured(benchmark: str, scored: pd.DataFrame) -> Iterator[tuple[str, int, Value]]:
    """Name, number of questions and value of every metric of a benchmark; without those that nothing was answered for.

    Args:
        benchmark: a key of BENCHMARKS.
        scored: rows of experiments.benchmarking.scored.SCHEMA; those without a score are left out.
    """
    answered = scored.dropna(subset=["score"])
    for name, measure in metrics_of(benchmark, answered).items():
        value = measure(answered)
        if value is not None:
            yield name, len(answered), value


def metrics_of(benchmark: str, answered: pd.DataFrame) -> dict[str, Measure]:
    """The metrics of a benchmark, the one that tables show first."""
    if benchmark == "pope":
        return {
            "f1": partial(yes_or_no, formula=aggregates.f1),
            "precision": partial(yes_or_no, formula=aggregates.precision),
            "recall": partial(yes_or_no, formula=aggregates.recall),
            "accuracy": mean,
            "yes_ratio": partial(yes_or_no, formula=aggregates.share(lambda said, truth: said == "yes")),
            # The mean over random, popular and adversarial of F1, by lmms-eval's reading and by that of LLaVA's
            # evaluation, which the papers on LLaVA-1.5 use.
            "f1_mean_of_splits": partial(yes_or_no, formula=aggregates.f1, by="stratum"),
            "f1_mean_of_splits_llava": partial(yes_or_no, formula=aggregates.f1, by="stratum", read=llava_reading),
        }
    if benchmark == "mme":
        return {
            "perception": lambda rows: pairs(rows[~rows["stratum"].isin(COGNITION)]),
            "cognition": lambda rows: pairs(rows[rows["stratum"].isin(COGNITION)]),
            "accuracy": mean,
        }
    if benchmark.startswith("mmbench"):
        return {"circular": circular, "accuracy": mean}
    if benchmark == "mmstar":
        return {"mean_of_categories": partial(mean, by="stratum"), "mean_of_six": partial(mean, by="type")}
    found: dict[str, Measure] = {"mean": mean}
    kinds = sorted(answered["type"].unique())
    if benchmark in ("chartqa", "vstar_bench") and len(kinds) > 1:
        found |= {kind: partial(_of_type, kind=kind) for kind in kinds}
    return found


def mean(rows: pd.DataFrame, by: str | None = None) -> Value | None:
    """The mean score, or the mean over strata of their means."""
    if by is None and len(rows) and rows["score"].isin((0.0, 1.0)).all():
        return Value(float(rows["score"].mean()), *accuracy_interval(rows["score"]))
    return _interval(rows.assign(kind=[(score,) for score in rows["score"]]), aggregates.mean, by)


def _of_type(rows: pd.DataFrame, kind: str) -> Value | None:
    return mean(rows[rows["type"] == kind])


def circular(rows: pd.DataFrame) -> Value | None:
    """The share of units of which every question is answered right: MMBench turns the options around."""
    units = rows.groupby("unit", sort=False)["score"].min().reset_index()
    return mean(units)


def pairs(rows: pd.DataFrame) -> Value | None:
    """MME's points: in each category the mean over images of accuracy and accuracy+ in percent, summed.

    An image has two questions; accuracy+ wants both right. Images of which one question was not answered are left out.
    """
    images = rows.groupby(["stratum", "unit"], sort=False)["score"].agg(["sum", "size"]).reset_index()
    images = images[images["size"] == 2]
    points = images["sum"] / 2 * 100 + (images["sum"] == 2) * 100.0
    found = _interval(images.assign(kind=[(value,) for value in points]), aggregates.mean, "stratum")
    if found is None:
        return None
    categories = images["stratum"].nunique()
    return Value(*(categories * value for value in (found.value, found.low, found.high)))


def yes_or_no(
    rows: pd.DataFrame,
    formula: aggregates.Formula,
    by: str | None = None,
    read: Callable[[str], str] | None = None,
) -> Value | None:
    """A formula of what was said and what is true; `read` reads predictions in another way than the benchmark."""
    said = rows["said"] if read is None else rows["prediction"].map(read)
    return _interval(rows.assign(kind=list(zip(said, rows["truth"], strict=True))), formula, by)


def llava_reading(prediction: str) -> str:
    """Yes or no as LLaVA's evaluation of POPE reads it: "no" where one of `NEGATIONS` is in the first sentence."""
    words = prediction.split(".")[0].replace(",", "").split(" ")
    return "no" if NEGATIONS & set(words) else "yes"


def _interval(rows: pd.DataFrame, formula: aggregates.Formula, by: str | None) -> Value | None:
    if rows.empty:
        return None
    strata = [rows["kind"].tolist()] if by is None else [list(kinds) for _, kinds in rows.groupby(by)["kind"]]
    return aggregates.interval(strata, formula)


def contributions(benchmark: str, scored: pd.DataFrame) -> tuple[str, pd.Series]:
    """What each unit adds to a number of the benchmark that is a sum over units, and that number's name.

    It is the one that tables show, but accuracy for POPE, whose F1 is no such sum.
    """
    answered = scored.dropna(subset=["score"])
    metric = BENCHMARKS[benchmark].metric
    if metric == "perception":
        seen = answered[~answered["stratum"].isin(COGNITION)]
        images = seen.groupby(["stratum", "unit"])["score"].agg(["sum", "size"])
        points = (images["sum"] / 2 * 100 + (images["sum"] == 2) * 100.0)[images["size"] == 2]
        return metric, points / points.groupby("stratum").transform("size")
    if metric == "circular":
        units = answered.groupby("unit")["score"].min()
        return metric, units / len(units)
    if metric == "mean_of_categories":
        by_id = answered.set_index(["stratum", "id"])["score"]
        return metric, by_id / by_id.groupby("stratum").transform("size") / answered["stratum"].nunique()
    name = "accuracy" if metric == "f1" else metric
    return name, answered.set_index("id")["score"] / max(1, len(answered))
