"""Stored answers, replayed through lmms-eval's own `process_results` and aggregations. No model, no GPU, no cache."""

import argparse
import contextlib
import inspect
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from lmms_eval.api.instance import Instance

from experiments.benchmarking import scored
from experiments.benchmarking.stored import Run
from experiments.lmms.tasks import TaskQuestions

# The questions of MMBench's circular evaluation are the same but for the order of the options; their numbers differ by
# multiples of this.
CIRCULAR = 10**6
# Its aggregation adds to a sum that the module keeps, so that a second call counts the first one's answers again.
NOT_AGGREGATED = ("ocrbench", "submission")


def score(run: Run, questions: TaskQuestions, out: Path) -> None:
    """Score a run's answers and store them, with lmms-eval's own totals where every question was answered.

    Raises:
        FileNotFoundError: the run is not complete.
    """
    answers = run.read(["id", "type", "prediction", "answer"])
    answered = answers.dropna(subset=["prediction"])
    documents = {row: questions.document(row) for row in answered["row"]}
    texts = filtered(questions, answered)
    metrics = {row: questions.task.process_results(documents[row], [texts[row]]) for row in texts}
    rows = []
    for answer in answers.to_dict("records"):
        row = scored.unscored(answer)
        if answer["row"] in metrics:
            # Anew: scoring may normalise a document in place.
            reading = READINGS.get(questions.task.config.task, _first)
            row |= reading(metrics[answer["row"]], questions.document(answer["row"]))
        rows.append(row)
    complete = len(metrics) == len(answers)
    told = {"scorer": f"lmms-eval {version('lmms_eval')}", "totals": totals(questions, metrics) if complete else {}}
    scored.write(out, run, rows, told)


def filtered(questions: TaskQuestions, answered: pd.DataFrame) -> dict[int, Any]:
    """What a task's filters make of predictions that are cut where its `until` begins, by row."""
    task = questions.task
    until = task.config.generation_kwargs.get("until") or []
    instances = [
        Instance(
            "generate_until",
            ("", None, {}, row, task.config.task, ""),
            0,
            metadata={"task": task.config.task, "doc_id": row, "repeats": 1},
            resps=[cut(text, until)],
        )
        for row, text in zip(answered["row"], answered["prediction"], strict=True)
    ]
    documents = [questions.document(row) for row in answered["row"]]
    for pipeline in task._filters:
        pipeline.apply(instances, documents)
    name = task._filters[0].name
    return {row: one.filtered_resps[name] for row, one in zip(answered["row"], instances, strict=True)}


def cut(text: str, until: list[str] | str) -> str:
    """The text up to where the first of some strings begins."""
    for end in [until] if isinstance(until, str) else until:
        if end:
            text = text.split(end)[0]
    return text


def totals(questions: TaskQuestions, metrics: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """lmms-eval's own aggregation of each of its metrics."""
    found = {}
    # Some of them print, which is no result of ours.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        wanted = argparse.Namespace(output_path=folder, process_with_media=False)
        for name, aggregate in questions.task.aggregation().items():
            values = [one[name] for one in metrics.values() if name in one]
            if not values or name.startswith(NOT_AGGREGATED):
                continue
            takes_arguments = "args" in inspect.signature(aggregate).parameters
            total = aggregate(values, args=wanted) if takes_arguments else aggregate(values)
            if total is not None:
                found[name] = float(total)
    return found


def _first(metrics: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The score of a task whose first metric is one number a question."""
    value = next(iter(metrics.values()))
    return {"score": float(value["score"] if isinstance(value, dict) else value)}


def _pope(metrics: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    found = metrics["pope_accuracy"]
    return {
        "score": float(found["score"]),
        "stratum": document["category"],
        "said": found["prediction"] if found["prediction"] in ("yes", "no") else "other",
        "truth": found["ground_truth"],
    }


def _mme(metrics: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = metrics.values()
    return {"score": float(found["score"]), "unit": str(found["question_id"]), "stratum": found["category"]}


def _mmstar(metrics: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    return {"score": float(metrics["average"]["score"]), "stratum": metrics["average"]["l2_category"]}


def _mmbench(metrics: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """By the evaluator's static rule, one question at a time: it gives no score but in its aggregation."""
    from lmms_eval.tasks.mmbench.en_utils import mmbench_evaluator

    item = {key if key in "ABCD" else key.lower(): value for key, value in metrics["gpt_eval_score"].items()}
    alone = pd.DataFrame([item])
    hit = mmbench_evaluator.eval_sub_data(alone, {item["index"]: item["answer"]}, static_only=True)
    return {"score": float(hit), "unit": str(int(item["index"]) % CIRCULAR)}


def _vstar(metrics: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    found = metrics["vstar_overall_acc"]
    return {"score": float(found["score"])}


READINGS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]] = {
    "pope": _pope,
    "mme": _mme,
    "mmstar": _mmstar,
    "mmbench_en_dev_static": _mmbench,
    "vstar_bench": _vstar,
}
