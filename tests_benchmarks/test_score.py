"""Scores of stored answers, worked out by hand, and lmms-eval's own totals beside ours."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from experiments.benchmarking import metrics, scored, stored
from experiments.benchmarking.stored import Run
from experiments.lmms.score import score
from experiments.lmms.tasks import TaskQuestions
from experiments.recorded.cells import write_table

# Benchmark -> what was answered, the scores of the questions, and lmms-eval's total.
CASES: dict[str, tuple[list[str], list[float], dict[str, float]]] = {
    # random: yes/yes right, no/no right; popular: "no" for yes, "yes" for no; adversarial: "yes" for yes, "Yes." for
    # no, which is neither word. True positives 2, false positives 1, false negatives 1: F1 2/3.
    "pope": (
        ["Yes", "no", "no", "yes", "yes", "Yes."],
        [1, 1, 0, 0, 1, 0],
        {"pope_accuracy": 0.5, "pope_precision": 2 / 3, "pope_recall": 2 / 3, "pope_f1_score": 2 / 3},
    ),
    "gqa": (["Girl.", "bus", "yes"], [1, 0, 1], {"exact_match": 2 / 3}),
    # Ten answers leave nine others, each time: all ten agree, 1. Two of ten: for the two who said it one other did,
    # 1/3; for eight, two did, 2/3: (2 x 1/3 + 8 x 2/3) / 10 = .6. Three of ten: for three 2/3, for seven 1: .9.
    "textvqa_val": (["Nokia.", "1", "dog"], [1, 0.6, 0.9], {"exact_match": 2.5 / 3}),
    # Here an answer is left out by its number, so the same; "a dog" and "dog" are the same without the article.
    "vqav2_val": (["nokia", "one", "the dog"], [1, 0.6, 0.9], {"exact_match": 2.5 / 3}),
    "vqav2_val_lite": (["nokia", "1", "bird"], [1, 0.6, 0], {"exact_match": 1.6 / 3}),
    "vizwiz_vqa_val": (["unanswerable", "one", "dog"], [0, 0.6, 0.9], {"exact_match": 0.5}),
    "scienceqa_img": (["B", "A. red"], [1, 1], {"exact_match": 1.0}),
    # existence: image 1 both right (100 + 100), image 2 one of two (50); count: both wrong (0); so perception is
    # 125 + 0; cognition: both right, 200.
    "mme": (
        ["Yes", "No", "yes, it is", "yes", "no", "Yes", "Yes.", "No."],
        [1, 1, 1, 0, 0, 0, 1, 1],
        {"mme_perception_score": 125.0, "mme_cognition_score": 200.0},
    ),
    # 1 and its turned round copy 1000001: A right, then A for B: wrong together. 2 right, 3 "blue" is B: right.
    "mmbench_en_dev_static": (["A", "A", "A.", "It is blue"], [1, 0, 1, 1], {"gpt_eval_score": 200 / 3}),
    # geometry: one of two right, statistical reasoning: right, image emotion: wrong; (.5 + 1 + 0) / 3.
    "mmstar": (["A", "B", "(A)", "C"], [1, 0, 1, 0], {"average": 0.5}),
    "ocrbench": (["It says centre", "$x+1$"], [1, 1], {}),
    # july 2: one edit in six characters, 1 - 1/6. Four edits in ten: .6; more than half: 0.
    "docvqa_val": (["July 2", "abcdef1234"], [5 / 6, 0.6], {"anls": (5 / 6 + 0.6) / 2}),
    # 104 is within 5 % of 100; "50%" is .5.
    "chartqa": (
        ["104", "blue", "50%"],
        [1, 0, 1],
        {"relaxed_overall": 2 / 3, "relaxed_human_split": 0.5, "relaxed_augmented_split": 1.0},
    ),
    "vstar_bench": (["A", "(A)", "B."], [1, 0, 0], {"vstar_overall_acc": 100 / 3}),
    "realworldqa": (["B. Right", "3."], [1, 1], {"exact_match": 1.0}),
}
# Metrics of this project that must be lmms-eval's totals, and what these are divided by.
SAME = {
    "pope": {"f1": ("pope_f1_score", 1), "precision": ("pope_precision", 1), "recall": ("pope_recall", 1),
             "accuracy": ("pope_accuracy", 1)},
    "mme": {"perception": ("mme_perception_score", 1), "cognition": ("mme_cognition_score", 1)},
    "mmbench_en_dev_static": {"circular": ("gpt_eval_score", 100)},
    "mmstar": {"mean_of_categories": ("average", 1)},
    "chartqa": {"mean": ("relaxed_overall", 1), "human_test": ("relaxed_human_split", 1),
                "augmented_test": ("relaxed_augmented_split", 1)},
    "vstar_bench": {"mean": ("vstar_overall_acc", 100)},
    "docvqa_val": {"mean": ("anls", 1)},
}  # fmt: skip


def stored_run(out: Path, questions: TaskQuestions, predictions: list[str | None]) -> Run:
    """A run whose answers are these; None stands for an image that the setting cannot be had on."""
    keys = {"model": "tiny", "benchmark": questions.name, "method": "full", "setting": "full"}
    run = stored.make(out, keys, 1, len(questions), {"questions": questions.identity, "predictions": predictions})
    rows: list[dict[str, Any]] = []
    for row, text in enumerate(predictions):
        asked = questions.question(row)
        rows.append({"row": row, "id": asked.id, "type": asked.type, "answer": asked.answer, "prediction": text})
        rows[-1]["reason"] = "too few visual tokens" if text is None else None
    write_table(run.part(0), pa.Table.from_pylist(rows, schema=stored.SCHEMA))
    return run


def scores_of(name: str, predictions: list[str | None], data: Path, out: Path) -> tuple[pd.DataFrame, dict[str, float]]:
    questions = TaskQuestions(name, data)
    run = stored_run(out, questions, predictions)
    score(run, questions, out)
    return scored.read(out, run), scored.told(out, run)["totals"]


@pytest.mark.parametrize("name", CASES)
def test_scores_are_those_worked_out_by_hand(name: str, data: Path, tmp_path: Path) -> None:
    predictions, scores, expected = CASES[name]
    table, totals = scores_of(name, list(predictions), data, tmp_path)
    assert table["score"].tolist() == pytest.approx(scores)
    assert {key: totals[key] for key in expected} == pytest.approx(expected)
    assert table["correct"].isna().tolist() == [value not in (0, 1) for value in scores]
    # Once more gives the same: nothing that scoring changes in a document, or adds up, stays.
    again, totals_again = scores_of(name, list(predictions), data, tmp_path)
    pd.testing.assert_frame_equal(table, again)
    assert totals == totals_again


@pytest.mark.parametrize("name", CASES)
def test_our_metrics_are_lmms_evals(name: str, data: Path, tmp_path: Path) -> None:
    table, totals = scores_of(name, list(CASES[name][0]), data, tmp_path)
    found = {metric: value.value for metric, _, value in metrics.measured(name, table)}
    for ours, (theirs, divided) in SAME.get(name, {"mean": ("exact_match", 1)}).items():
        if theirs in totals:
            assert found[ours] == pytest.approx(totals[theirs] / divided), ours
    for _, _, value in metrics.measured(name, table):
        assert value.low <= value.value <= value.high


def test_pope_by_split_and_by_llavas_reading(data: Path, tmp_path: Path) -> None:
    """By split F1 is 1, 0 and 1: the third has one true positive, and "Yes." is no "yes" for lmms-eval.

    LLaVA reads "Yes." as yes: a false positive, F1 2/3 there.
    """
    table, _ = scores_of("pope", list(CASES["pope"][0]), data, tmp_path)
    found = {metric: value.value for metric, _, value in metrics.measured("pope", table)}
    assert found["f1_mean_of_splits"] == pytest.approx(2 / 3)
    assert found["f1_mean_of_splits_llava"] == pytest.approx((1 + 0 + 2 / 3) / 3)


def test_unanswered_questions_are_left_out_and_seen(data: Path, tmp_path: Path) -> None:
    """Of MME's first image one question is not answered: the pair is left out, and there are no totals of a whole."""
    predictions: list[str | None] = [None, *CASES["mme"][0][1:]]
    table, totals = scores_of("mme", predictions, data, tmp_path)
    assert table["score"].isna().tolist() == [True] + 7 * [False] and totals == {}
    found = {metric: (n, value.value) for metric, n, value in metrics.measured("mme", table)}
    assert found["perception"] == (7, pytest.approx(50 + 0)), "existence is the second image alone: 50"


def test_answers_end_where_the_task_says(data: Path, tmp_path: Path) -> None:
    """TextVQA's end at "ASSISTANT:", POPE's at an empty line."""
    table, _ = scores_of("textvqa_val", ["nokia ASSISTANT: no", "one", "dog"], data, tmp_path)
    assert table["score"].tolist()[0] == 1
    table, _ = scores_of("pope", ["yes\n\nno", "no", "no", "yes", "yes", "yes"], data, tmp_path)
    assert table["score"].tolist()[0] == 1


def test_an_incomplete_run_is_not_scored(data: Path, tmp_path: Path) -> None:
    questions = TaskQuestions("gqa", data)
    run = stored_run(tmp_path, questions, ["girl", "bus", "yes"])
    run.part(0).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 1 parts are missing"):
        score(run, questions, tmp_path)
