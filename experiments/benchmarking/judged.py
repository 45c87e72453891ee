"""A language model scores free answers, as the authors of a benchmark have it done; each protocol is a preset.

Replies are kept in OUT/judge/MODEL.jsonl as they come, so that an interrupted scoring goes on.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.benchmarking import scored
from experiments.benchmarking.questions import Question, Questions
from experiments.benchmarking.stored import Run
from experiments.judge import JudgeError, ask_all, connect, digest
from experiments.parameters.sections import Judge


@dataclass(frozen=True)
class Protocol:
    """How answers are judged.

    Attributes:
        name: says whose it is.
        messages: of a question and a prediction.
        settings: of the request, beside model and messages.
        score: in 0..1 of a reply; None where it holds none.
    """

    name: str
    messages: Callable[[Question, str], list[dict[str, str]]]
    settings: dict[str, Any]
    score: Callable[[str], float | None]


# GlimpsePrune's own words (arXiv 2508.01548, its repository's viscot_eval), blank lines and all.
SYSTEM = (
    "\nYou are responsible for proofreading the answers, you need to give a score to the model's answer by referring "
    "to the standard answer, based on the given question. The full score is 1 point and the minimum score is 0 points. "
    'Please output the score in the form "score: <score>". The evaluation criteria require that the closer the '
    "model's answer is to the standard answer, the higher the score.\n"
)


def _visual_cot(question: Question, prediction: str) -> list[dict[str, str]]:
    told = (question.further or {})["told"]
    asked = f"\nquestion: {told}\nstandard answer: {question.answer}\nmodel's answer: {prediction}\n"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": asked}]


def read_score(reply: str) -> float:
    """As the authors read a reply: 0 where it holds no score or several, and never above 1."""
    found = re.findall(r"score: ([\d.]+)", reply.lower())
    try:
        return min(1.0, float(found[0])) if len(found) == 1 else 0.0
    except ValueError:
        return 0.0


# Through an endpoint the authors judge at temperature 0; their other path, vLLM in the same process, samples at .7
# (top_p .8, repetition_penalty 1.05), which no two runs repeat.
GLIMPSEPRUNE = Protocol(
    "GlimpsePrune (arXiv 2508.01548), its path through an endpoint",
    _visual_cot,
    {"temperature": 0, "max_tokens": 512},
    read_score,
)


def score(runs: Sequence[Run], questions: Questions, judge: Judge | None, protocol: Protocol | None, out: Path) -> None:
    """Have the answers of some runs of one benchmark judged, and store the scores.

    Raises:
        JudgeError: none is named, or it cannot be asked; replies that came are kept.
        FileNotFoundError: a run is not complete.
    """
    if judge is None or protocol is None:
        raise JudgeError(f"{questions.name}: a language model scores the answers; name it under the recipe's `judge`")
    answers = {run: run.read(["id", "type", "prediction", "answer"]) for run in runs}
    bodies = {
        (run, row): body(protocol, judge, questions.question(row), text)
        for run, table in answers.items()
        for row, text in zip(table["row"], table["prediction"], strict=True)
        if pd.notna(text)
    }
    transcript = out / "judge" / f"{Path(judge.model).name}.jsonl"
    replies = ask_all(list(bodies.values()), connect(judge), judge.workers, transcript) if bodies else {}
    for run, table in answers.items():
        rows = []
        for answer in table.to_dict("records"):
            row = scored.unscored(answer)
            if (run, answer["row"]) in bodies:
                row["score"] = protocol.score(replies[digest(bodies[run, answer["row"]])])
            rows.append(row)
        scored.write(out, run, rows, {"scorer": f"{judge.model}, {protocol.name}", "totals": {}})


def body(protocol: Protocol, judge: Judge, question: Question, prediction: str) -> dict[str, Any]:
    """The request for one answer."""
    return {"model": judge.model, "messages": protocol.messages(question, prediction), **protocol.settings}
