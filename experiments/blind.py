"""What can be scored without looking at the picture: `python -m experiments.blind`.

Writes results/blind.csv, one row for each question type of the evaluation split:

- `chance`: a guess among the answers that the question allows (a colour, yes or no, ...), the mean over the questions;
- `constant`: the most frequent answer of the type, given to all;
- `wording`: the most frequent answer to questions of the same wording, learned from freshly drawn scenes;
- `withheld`: the model itself, asked without the image.
"""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin

import pruning
from experiments import stage
from experiments.asking import answers, benchmarks, models
from experiments.asking.inputs import build_inputs
from experiments.parameters.load import Parameters
from experiments.recorded.cells import write_text
from experiments.testbed.packing import draw_questions
from experiments.testbed.questions import MOST_COUNTED, TYPES
from experiments.testbed.scenes import CHARACTERS, COLOURS, SHAPES, sample_scene

OUTPUT = Path("results/blind.csv")
SCENES = 4000
QUESTIONS = 20  # of each scene
BATCH = 100
CELLS = tuple(f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "center", "right"))
COUNTS = tuple(str(number) for number in range(1, MOST_COUNTED + 1))


def chance(question: str, answer: str) -> float:
    """The probability of guessing an answer among those of its kind; in 0..1.

    Raises ValueError for an answer that the scenes' questions do not have.
    """
    sides = ("left", "right") if "left or right" in question else ("above", "below")
    for kind in (("yes", "no"), COLOURS, SHAPES, CHARACTERS if "character" in question else (), CELLS, sides):
        if answer in kind:
            return 1 / len(kind)
    if question.startswith("how many") and answer in COUNTS:
        return 1 / len(COUNTS)
    raise ValueError(f"{answer!r} is no answer of the scenes, to {question!r}")


def habitual_answers(seed: int) -> dict[str, str]:
    """The most frequent answer to each wording, over questions about SCENES scenes drawn from `seed`."""
    rng = np.random.default_rng([seed, *b"blind"])
    answered: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for _ in range(SCENES):
        for question in draw_questions(sample_scene(rng), QUESTIONS, rng, dict.fromkeys(TYPES, 1)):
            answered[question.text][question.answer] += 1
    return {text: counts.most_common(1)[0][0] for text, counts in answered.items()}


def answers_without_image(
    model: PreTrainedModel, processor: ProcessorMixin, questions: list[str], max_new_tokens: int
) -> list[str]:
    """The model's greedy answers to the questions alone."""
    method = pruning.make("full")
    found: list[str] = []
    for start in range(0, len(questions), BATCH):
        asked = questions[start : start + BATCH]
        inputs = build_inputs(processor, [[] for _ in asked], asked)
        found += answers.answer(model, processor, method, inputs, max_new_tokens)[0]
    return found


def measure(questions: Dataset, withheld: list[str], habits: dict[str, str]) -> pd.DataFrame:
    """Shares of right answers by type, each in 0..1 and rounded to four places."""
    table = pd.DataFrame({"type": questions["type"], "answer": questions["answer"]})
    table["withheld"] = [answers.matches(given, right) for given, right in zip(withheld, table.answer, strict=True)]
    table["wording"] = [
        habits.get(text) == right for text, right in zip(questions["question"], table.answer, strict=True)
    ]
    table["chance"] = [chance(text, right) for text, right in zip(questions["question"], table.answer, strict=True)]
    by_type = table.groupby("type")
    result = by_type[["chance", "wording", "withheld"]].mean()
    result.insert(0, "constant", by_type.answer.agg(lambda right: right.value_counts(normalize=True).max()))
    result.insert(0, "n", by_type.size())
    return result.round(4).reset_index()


def write(parameters: Parameters) -> None:
    """The table."""
    settings = parameters.evaluate
    model, processor = models.load(parameters.model)
    questions = benchmarks.load(settings.benchmark).remove_columns("image")
    withheld = answers_without_image(model, processor, questions["question"], settings.max_new_tokens)
    table = measure(questions, withheld, habitual_answers(settings.seed))
    table.insert(0, "model", parameters.model)
    write_text(OUTPUT, table.to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
