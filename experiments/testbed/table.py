"""The testbed's questions as a table."""

import io
from collections import Counter

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from tqdm import tqdm

from experiments.testbed.questions import TYPES, Question, caption
from experiments.testbed.scenes import COLOURS, Scene, render, sample_scene

FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "question": Value("string"),
        "answer": Value("string"),
        "type": Value("string"),
        "boxes": List(List(Value("float32"))),
    }
)


def png(scene: Scene) -> bytes:
    """The rendered scene as PNG bytes."""
    buffer = io.BytesIO()
    render(scene).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def rarest(questions: list[Question], asked: Counter[tuple[str, str]], rng: np.random.Generator) -> Question:
    """A question whose answer was asked for least so far, ties at random."""
    ranked = sorted(
        rng.permutation(len(questions)).tolist(), key=lambda i: asked[questions[i].type, questions[i].answer]
    )
    return questions[ranked[0]]


def draw(split: str, count: int, seed: int) -> Dataset:
    """`count` scenes on which every type can be asked: a question of each type and a caption each."""
    # Training draws its scenes from other streams of the generator (experiments/testbed/loop.py).
    rng = np.random.default_rng([seed, *split.encode()])
    asked: Counter[tuple[str, str]] = Counter()
    rows: list[dict[str, object]] = []
    with tqdm(total=count, desc=split) as progress:
        while progress.n < count:
            scene = sample_scene(rng)
            askable = [ask(scene) for ask in TYPES.values()]
            # A scene has one dot and so one question about it: its colour is balanced by choosing the scene.
            often = asked["small_object", scene.dot.colour] > progress.n // len(COLOURS)
            if often or not all(askable):
                continue
            questions = [rarest(found, asked, rng) for found in askable]
            asked.update((question.type, question.answer) for question in questions)
            image = {"bytes": png(scene), "path": None}
            for question in (*questions, caption(scene)):
                rows.append(
                    {
                        "id": f"{split}-{progress.n:04d}-{question.type}",
                        "image": image,
                        "question": question.text,
                        "answer": question.answer,
                        "type": question.type,
                        "boxes": [list(box) for box in question.boxes],
                    }
                )
            progress.update()
    return Dataset.from_list(rows, features=FEATURES)
