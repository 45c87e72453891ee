"""Questions with evidence boxes to train on: the testbed's tables, drawn scenes, and Visual-CoT's files.

All are one `GroundedQuestions`, whose `collate` makes training batches of them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow.parquet
import torch
from datasets import Dataset
from datasets.table import InMemoryTable
from PIL import Image
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import ProcessorMixin

from experiments.asking.benchmarks import FREE_FORM
from experiments.asking.boxes import seen_boxes
from experiments.asking.inputs import build_inputs

IGNORED = -100
VISUAL_COT_KEYS = ("question", "answer", "image", "bboxs")
Question = dict[str, Any]


class GroundedQuestions(torch.utils.data.Dataset):
    """Questions, each a dict of `image` (PIL), `question`, `answer` and `boxes`, a list of [x0, y0, x1, y1] in 0..1.

    Args:
        rows: anything with a length whose items hold these, images as PIL images or as paths.
    """

    def __init__(self, rows: Dataset | Sequence[Question]) -> None:
        self.rows = rows

    @classmethod
    def from_table(cls, table: pyarrow.Table, questions: int = 0, seed: int = 0) -> Self:
        """Short-answer questions of a table with the columns of data/scenes/*.parquet, as many as asked for (0: all).

        Raises ValueError where there are fewer.
        """
        dataset = Dataset(InMemoryTable(table))
        short = np.flatnonzero(~np.isin(dataset["type"], FREE_FORM))
        return cls(dataset.select(_drawn(short, questions, seed)))

    @classmethod
    def from_visual_cot(cls, file: Path, images: Path, questions: int = 0, seed: int = 0) -> Self:
        """Questions of one of Visual-CoT's jsonl files (arXiv 2403.16999), boxes there in pixels.

        Args:
            file: one JSON object a line with `question`, `answer`, `image` and `bboxs`.
            images: folder that the `image` names are relative to.
            questions: how many to draw at random; 0 takes all. Questions without a box are passed over first.

        Raises:
            FileNotFoundError: no such file, or the first image is not there.
            ValueError: a line is not such an object, or there are too few.
        """
        rows = []
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                entry = json.loads(line)
                missing = [key for key in VISUAL_COT_KEYS if key not in entry]
            except (json.JSONDecodeError, TypeError) as error:
                raise ValueError(f"{file}, line {number}: not a JSON object: {error}") from error
            if missing:
                raise ValueError(f"{file}, line {number} has no {', '.join(missing)}")
            if entry["bboxs"]:
                rows.append(entry | {"image": images / entry["image"], "in_pixels": True})
        chosen = [rows[index] for index in _drawn(np.arange(len(rows)), questions, seed)]
        if chosen and not chosen[0]["image"].exists():
            raise FileNotFoundError(f"{chosen[0]['image']} is not there: name the folder that images are relative to")
        return cls(chosen)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Question:
        row = self.rows[index]
        image = row["image"]
        if isinstance(image, Path):
            with Image.open(image) as opened:
                image = opened.convert("RGB")
        boxes = row.get("boxes")
        if row.get("in_pixels"):
            extent = (*image.size, *image.size)
            boxes = [[value / side for value, side in zip(box, extent, strict=True)] for box in row["bboxs"]]
        return {"image": image, "question": row["question"], "answer": str(row["answer"]), "boxes": boxes}


def collate(processor: ProcessorMixin, questions: Sequence[Question]) -> dict[str, Any]:
    """A training batch: what the model takes, prompts padded on the left and answers on the right, with

    - `labels`: int64 `[B, L]`, the answer's tokens and the end of the text, -100 everywhere else;
    - `boxes`: for each sample its boxes, in 0..1 of the image as the vision tower sees it.
    """
    inputs = dict(build_inputs(processor, [q["image"] for q in questions], [q["question"] for q in questions]))
    tokenizer = processor.tokenizer
    answers = [
        torch.tensor([*tokenizer(q["answer"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id])
        for q in questions
    ]
    answers_BA = pad_sequence(answers, batch_first=True, padding_value=tokenizer.pad_token_id)
    lengths_B = torch.tensor([len(answer) for answer in answers])
    present_BA = torch.arange(answers_BA.shape[1]) < lengths_B[:, None]
    prompts_BL = inputs["input_ids"]
    inputs["input_ids"] = torch.cat([prompts_BL, answers_BA], dim=1)
    inputs["attention_mask"] = torch.cat([inputs["attention_mask"], present_BA.long()], dim=1)
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = pad(inputs["mm_token_type_ids"], (0, answers_BA.shape[1]))
    unlabelled_BL = torch.full_like(prompts_BL, IGNORED)
    inputs["labels"] = torch.cat([unlabelled_BL, answers_BA.masked_fill(~present_BA, IGNORED)], dim=1)
    shown = processor.image_processor
    return inputs | {"boxes": [seen_boxes(q["boxes"], q["image"].size, shown) for q in questions]}


def _drawn(rows: np.ndarray, count: int, seed: int) -> list[int]:
    """`count` of the rows in random order; 0 takes all, in order."""
    if count > len(rows):
        raise ValueError(f"{count} questions asked for, but there are {len(rows)} with boxes and a short answer")
    return (np.random.default_rng(seed).permutation(rows)[:count] if count else rows).tolist()
