"""Write the testbed's questions: `python -m experiments.scenes`.

data/scenes/evaluation.parquet and validation.parquet; the same seed gives the same bytes. Every scene is asked one
question of each type and for a caption, and one of the questions again for an answer in a sentence; answers are
balanced within each type.
"""

import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
from datasets import Dataset, Features, Image, List, Value
from tqdm import tqdm

from experiments.parameters import load_parameters
from experiments.testbed.questions import TYPES, Question, caption
from experiments.testbed.scenes import COLOURS, Scene, render, sample_scene
from experiments.testbed.sentences import in_full

FOLDER = Path("data/scenes")
SCENES = {"evaluation": 300, "validation": 60}
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
    """`count` scenes on which every type can be asked: a question of each type, a caption and a full sentence each."""
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
            # The types take turns in being answered in a sentence.
            for question in (*questions, caption(scene), in_full(questions[progress.n % len(questions)])):
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


def write(dataset: Dataset, path: Path) -> None:
    """Write as parquet, under a temporary name first. Neighbouring rows share an image, which zstd stores once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pyarrow.parquet.write_table(
        dataset.data.table, part, compression="zstd", compression_level=12, use_dictionary=False
    )
    os.replace(part, path)


def main() -> None:
    seed = load_parameters().scenes.seed
    for split, count in SCENES.items():
        write(draw(split, count, seed), FOLDER / f"{split}.parquet")


if __name__ == "__main__":
    main()
