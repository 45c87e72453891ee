"""Questions with boxes, from the testbed's tables and in Visual-CoT's format, as training batches."""

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from experiments.asking.grounded import IGNORED, GroundedQuestions, collate
from experiments.asking.processors import load_processor
from tests.experiments import workspace
from tests.tiny_models import tiny_llava, tiny_qwen2_5_vl
from tests.tiny_processors import save_tiny

LINES = [
    {"question": "what colour is the circle ?", "answer": "red", "image": "a.png", "bboxs": [[10, 5, 20, 10]]},
    {"question": "red ?", "answer": "yes", "image": "b.png", "bboxs": [[0, 0, 30, 15], [30, 30, 60, 60]]},
    {"question": "blue ?", "answer": "no", "image": "b.png", "bboxs": []},
]


@pytest.fixture
def visual_cot(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png")
    Image.new("RGB", (60, 60), "blue").save(tmp_path / "b.png")
    file = tmp_path / "gqa.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)))
    return file


def test_visual_cot_boxes_become_shares_of_the_image(visual_cot: Path) -> None:
    questions = GroundedQuestions.from_visual_cot(visual_cot, visual_cot.parent)
    assert len(questions) == 2  # the one without a box is passed over
    assert questions[0]["boxes"] == [[0.25, 0.25, 0.5, 0.5]]
    assert questions[1]["boxes"] == [[0, 0, 0.5, 0.25], [0.5, 0.5, 1, 1]]
    assert questions[0]["image"].size == (40, 20) and questions[0]["answer"] == "red"


def test_the_same_seed_draws_the_same_questions(visual_cot: Path) -> None:
    drawn = [GroundedQuestions.from_visual_cot(visual_cot, visual_cot.parent, 1, seed)[0] for seed in (0, 0, 1, 2, 3)]
    assert drawn[0]["question"] == drawn[1]["question"]
    assert {question["question"] for question in drawn} == {"what colour is the circle ?", "red ?"}


def test_a_table_of_the_testbed_reads_the_same_way(tmp_path: Path) -> None:
    workspace.write_benchmark(tmp_path / "scenes.parquet", 6)
    questions = GroundedQuestions.from_table(pyarrow.parquet.read_table(tmp_path / "scenes.parquet"))
    assert len(questions) == 4  # captions are no short answers
    assert questions[0]["answer"] == "yes" and questions[0]["boxes"] == [[0, 0, 0.5, pytest.approx(0.33)]]
    assert questions[0]["image"].size == (24, 24)


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"question": "a"', "line 4: not a JSON object"),
        ('{"question": "a", "answer": "b"}', "line 4 has no image, bboxs"),
    ],
)
def test_a_bad_line_is_named(visual_cot: Path, line: str, message: str) -> None:
    visual_cot.write_text(visual_cot.read_text() + "\n" + line)
    with pytest.raises(ValueError, match=message):
        GroundedQuestions.from_visual_cot(visual_cot, visual_cot.parent)


def test_a_wrong_image_folder_is_said_before_training(visual_cot: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name the folder"):
        GroundedQuestions.from_visual_cot(visual_cot, visual_cot.parent / "elsewhere")
    with pytest.raises(ValueError, match="3 questions asked for, but there are 2"):
        GroundedQuestions.from_visual_cot(visual_cot, visual_cot.parent, 3)


@pytest.mark.parametrize("tiny", [tiny_llava, tiny_qwen2_5_vl])
def test_only_answers_and_their_ends_are_labelled(visual_cot: Path, tmp_path: Path, tiny) -> None:
    model = tiny()[0]
    save_tiny(model, tmp_path / "tiny")
    processor = load_processor(tmp_path / "tiny", model.config)
    questions = GroundedQuestions.from_visual_cot(visual_cot, visual_cot.parent)
    batch = collate(processor, [questions[0], questions[1]])
    for row, question in enumerate((questions[0], questions[1])):
        labelled = batch["labels"][row] != IGNORED
        words = processor.tokenizer.decode(batch["labels"][row][labelled], skip_special_tokens=True)
        assert words.strip() == question["answer"]
        assert batch["labels"][row][labelled][-1] == processor.tokenizer.eos_token_id
        assert (batch["input_ids"][row][labelled] == batch["labels"][row][labelled]).all()
        prompt = batch["attention_mask"][row].bool() & ~labelled
        assert question["question"].split()[0] in processor.tokenizer.decode(batch["input_ids"][row][prompt])
    # Bit for bit what the model makes of it in one call.
    assert model(**{name: value for name, value in batch.items() if name != "boxes"}).loss.isfinite()
