"""Tiny parquet files in the schemas of the real data sets: a few questions each, with random pictures."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Picture

TEXT, NUMBER, TEXTS = Value("string"), Value("int64"), List(Value("string"))
MMBENCH = ("question", "hint", "answer", "category", "source", "L2-category", "comment", "split")


def picture(seed: int, size: tuple[int, int] = (40, 24)) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write(path: Path, features: dict[str, Any], rows: list[dict[str, Any]], seed: int = 0) -> None:
    """Rows without `image` get one where the features have it; sizes differ."""
    for number, row in enumerate(rows):
        if "image" in features and "image" not in row:
            row["image"] = picture(seed + number, (40 + 8 * (number % 3), 24))
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=Features(features)).to_parquet(path)


def pope() -> list[dict[str, Any]]:
    """Two questions of each split: one is "yes", one is "no"."""
    return [
        {
            "id": str(2 * place + number),
            "question_id": str(2 * place + number),
            "question": f"Is there a {thing} in the image?",
            "answer": answer,
            "image_source": "COCO_val2014_1",
            "category": split,
        }
        for place, split in enumerate(("random", "popular", "adversarial"))
        for number, (thing, answer) in enumerate((("dog", "yes"), ("cat", "no")))
    ]


def consensus(*answers: tuple[str, int]) -> list[str]:
    """Ten people's answers."""
    return [text for text, count in answers for _ in range(count)]


def vqav2(answers: list[str], number: int, question: str) -> dict[str, Any]:
    given = [{"answer": text, "answer_confidence": "yes", "answer_id": place + 1} for place, text in enumerate(answers)]
    row = {"question_type": "what is", "multiple_choice_answer": answers[0], "answers": given, "answer_type": "other"}
    return row | {"question": question, "question_id": number, "image_id": number}


VQAV2 = {
    "question_type": TEXT,
    "multiple_choice_answer": TEXT,
    "answers": List({"answer": TEXT, "answer_confidence": TEXT, "answer_id": NUMBER}),
    "image_id": NUMBER,
    "answer_type": TEXT,
    "question_id": NUMBER,
    "question": TEXT,
    "image": Image(),
}


def write_all(folder: Path) -> Path:
    """Every task's files below a folder of its name; GQA's as the data set's repository lays them out."""
    write(
        folder / "pope/data/test-00000-of-00001.parquet",
        dict.fromkeys(("id", "question_id", "question", "answer", "image_source", "category"), TEXT)
        | {"image": Image()},
        pope(),
    )
    gqa = {"id": TEXT, "imageId": TEXT, "question": TEXT, "answer": TEXT, "fullAnswer": TEXT}
    write(
        folder / "gqa/testdev_balanced_instructions/testdev-00000-of-00001.parquet",
        gqa,
        [
            {"id": "1", "imageId": "n2", "question": "Who is it?", "answer": "girl", "fullAnswer": "It is a girl."},
            {"id": "2", "imageId": "n1", "question": "What is red?", "answer": "car", "fullAnswer": "A car."},
            {"id": "3", "imageId": "n2", "question": "Is it day?", "answer": "yes", "fullAnswer": "Yes."},
        ],
    )
    write(
        folder / "gqa/testdev_balanced_images/testdev-00000-of-00001.parquet",
        {"id": TEXT, "image": Image()},
        [{"id": "n1", "image": picture(1, (64, 24))}, {"id": "n2", "image": picture(2, (24, 64))}],
    )
    textvqa = {
        "image_id": TEXT,
        "question_id": NUMBER,
        "question": TEXT,
        "ocr_tokens": TEXTS,
        "answers": TEXTS,
        "image": Image(),
    }
    rows = [
        (consensus(("nokia", 10)), "what brand is it?"),
        (consensus(("one", 2), ("two", 8)), "how many?"),
        (consensus(("a dog", 3), ("cat", 7)), "what is it?"),
    ]
    write(
        folder / "textvqa_val/validation-00000-of-00001.parquet",
        textvqa,
        [
            {
                "image_id": str(number),
                "question_id": number,
                "question": question,
                "ocr_tokens": ["NOKIA", "5"],
                "answers": answers,
            }
            for number, (answers, question) in enumerate(rows)
        ],
    )
    questions = [vqav2(answers, number, question) for number, (answers, question) in enumerate(rows)]
    write(folder / "vqav2_val/validation-00000-of-00001.parquet", VQAV2, questions)
    write(folder / "vqav2_val_lite/vqav2_val/lite-00000-of-00001.parquet", VQAV2, questions)
    write(
        folder / "vizwiz_vqa_val/data/val-00000-of-00001.parquet",
        {"question_id": TEXT, "image": Image(), "question": TEXT, "answers": TEXTS, "category": TEXT},
        [
            {
                "question_id": f"VizWiz_val_{number}",
                "question": question,
                "answers": answers,
                "category": "other",
            }
            for number, (answers, question) in enumerate(rows)
        ],
    )
    _choices(folder)
    _readings(folder)
    return folder


def _choices(folder: Path) -> None:
    """Multiple choice and MME's pairs."""
    write(
        folder / "scienceqa_img/ScienceQA-IMG/test-00000-of-00001.parquet",
        {"image": Image(), "question": TEXT, "choices": TEXTS, "answer": NUMBER, "hint": TEXT},
        [
            {"question": "Which is it?", "choices": ["a solid", "a gas"], "answer": 1, "hint": "Look at it."},
            {"question": "Which?", "choices": ["red", "blue", "green"], "answer": 0, "hint": ""},
        ],
    )
    mme = [("existence", "1"), ("existence", "2"), ("count", "3"), ("code_reasoning", "4")]
    write(
        folder / "mme/test-00000-of-00001.parquet",
        dict.fromkeys(("question_id", "question", "answer", "category"), TEXT) | {"image": Image()},
        [
            {
                "question_id": f"{category}/{image}.jpg",
                "question": f"Is there {thing}? Please answer yes or no.",
                "answer": answer,
                "category": category,
            }
            for category, image in mme
            for thing, answer in (("a dog", "Yes"), ("a cat", "No"))
        ],
    )
    options = {"A": "red", "B": "blue", "C": "nan", "D": "nan"}
    write(
        folder / "mmbench_en_dev_static/en/dev-00000-of-00001.parquet",
        {"index": NUMBER} | dict.fromkeys([*"ABCD", *MMBENCH], TEXT) | {"image": Image()},
        [
            {
                "index": index,
                "question": "Which colour?",
                "hint": "nan",
                "answer": answer,
                **options,
                "category": "attribute_recognition",
                "source": "made up",
                "L2-category": "finegrained_perception",
                "comment": "nan",
                "split": "dev",
            }
            for index, answer in ((1, "A"), (1_000_001, "B"), (2, "A"), (3, "B"))
        ],
    )
    write(
        folder / "mmstar/val-00000-of-00001.parquet",
        {"index": NUMBER}
        | dict.fromkeys(("question", "answer", "category", "l2_category", "bench"), TEXT)
        | {"image": Image()},
        [
            {
                "index": number,
                "question": "Which?\nOptions: A: red, B: blue, C: green, D: white",
                "answer": "A",
                "category": category,
                "l2_category": detail,
                "bench": "made up",
            }
            for number, (category, detail) in enumerate(
                [("math", "geometry"), ("math", "geometry"), ("math", "statistical reasoning"),
                 ("coarse perception", "image emotion")]
            )
        ],
    )  # fmt: skip
    write(
        folder / "vstar_bench/test-00000-of-00001.parquet",
        {"image": Image()} | dict.fromkeys(("text", "category", "label", "question_id"), TEXT),
        [
            {
                "text": "Where is the dog? (A) left (B) right",
                "category": category,
                "label": label,
                "question_id": str(number),
            }
            for number, (category, label) in enumerate(
                [("direct_attributes", "A"), ("direct_attributes", "B"), ("relative_position", "A")]
            )
        ],
    )


def _readings(folder: Path) -> None:
    """Texts and numbers that are read off a picture."""
    write(
        folder / "ocrbench/data/test-00000-of-00001.parquet",
        {"dataset": TEXT, "question": TEXT, "question_type": TEXT, "answer": TEXTS, "image": Image()},
        [
            {"dataset": "IIIT5K", "question": "what is written?", "question_type": "Regular Text Recognition",
             "answer": ["CENTRE"]},
            {"dataset": "HME100k", "question": "Write the expression.",
             "question_type": "Handwritten Mathematical Expression Recognition", "answer": ["x + 1"]},
        ],
    )  # fmt: skip
    write(
        folder / "docvqa_val/DocVQA/validation-00000-of-00001.parquet",
        {"questionId": TEXT, "question": TEXT, "answers": TEXTS, "docId": NUMBER, "image": Image()},
        [
            {"questionId": "1", "question": "What is the date?", "answers": ["july 1", "1 july"], "docId": 1},
            {"questionId": "2", "question": "What is the sum?", "answers": ["abcdefghij"], "docId": 2},
        ],
    )
    write(
        folder / "chartqa/data/test-00000-of-00001.parquet",
        {"type": TEXT, "question": TEXT, "answer": TEXT, "image": Image()},
        [
            {"type": "human_test", "question": "What is the value?", "answer": "100"},
            {"type": "human_test", "question": "Which bar?", "answer": "Red"},
            {"type": "augmented_test", "question": "What is the share?", "answer": "0.5"},
        ],
    )
    write(
        folder / "realworldqa/data/test-00000-of-00001.parquet",
        {"image": Image(), "question": TEXT, "answer": TEXT},
        [
            {"question": "Which way?\nA. Left\nB. Right\nPlease answer directly with only the letter.", "answer": "B"},
            {"question": "How many cars are there?", "answer": "3"},
        ],
    )
    write(
        folder / "mmvet/test-00000-of-00001.parquet",
        dict.fromkeys(("question_id", "question", "answer", "image_source", "capability"), TEXT)
        | {"image": Image()},
        [{"question_id": "v1_0", "question": "What is x?", "answer": "-1<AND>-5", "image_source": "made up",
          "capability": "ocr,math"}],
    )  # fmt: skip
