"""MM-Vet's judge: the prompt that lmms-eval ships, asked through this project's client.

lmms-eval's own module for it asks for an endpoint's key as soon as it is imported; only its prompt is read here.
"""

import ast
from typing import Any

from experiments.benchmarking.judged import Protocol
from experiments.benchmarking.questions import Question
from experiments.lmms.tasks import TASKS

CONSTANT = "MM_VET_PROMPT"


def protocol() -> Protocol:
    """The protocol; a score is the first word of a reply. Temperature 0, as lmms-eval asks at first.

    lmms-eval asks again at higher temperatures where a reply holds no number; here it then has no score.
    """
    tree = ast.parse((TASKS / "mmvet/utils.py").read_text(encoding="utf-8"))
    (prompt,) = [
        str(ast.literal_eval(node.value))
        for node in tree.body
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == CONSTANT for target in node.targets)
    ]

    def messages(question: Question, prediction: str) -> list[dict[str, Any]]:
        right = question.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
        asked = (question.further or {})["question"]
        return [{"role": "user", "content": f"{prompt}\n{asked} | {right} | {prediction} |"}]

    return Protocol("MM-Vet's prompt in lmms-eval", messages, {"temperature": 0, "max_tokens": 128}, read_score)


def read_score(reply: str) -> float | None:
    """The number that a reply begins with, if it is one in 0..1."""
    try:
        found = float(reply.strip().split(" ")[0])
    except ValueError:
        return None
    return found if 0 <= found <= 1 else None
