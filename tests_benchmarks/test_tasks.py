"""lmms-eval's tasks as questions: prompts, images and sizes, from local files in the real schemas."""

from pathlib import Path

import pytest

from experiments.benchmarking.named import BENCHMARKS, LMMS
from experiments.benchmarking.questions import QuestionsError
from experiments.lmms.tasks import TaskQuestions
from tests_benchmarks import schemas

ONE_WORD = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
PROMPTS = {
    "pope": f"Is there a dog in the image?{ONE_WORD}",
    "gqa": f"Who is it?{ONE_WORD}",
    "textvqa_val": f"What brand is it?{ONE_WORD}",
    "textvqa_val_ocr": f"What brand is it?\nReference OCR token: NOKIA, 5{ONE_WORD}",
    "vqav2_val": f"what brand is it?{ONE_WORD}",
    "vqav2_val_lite": f"what brand is it?{ONE_WORD}",
    "vizwiz_vqa_val": "What brand is it?\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    + ONE_WORD,
    "scienceqa_img": f"Context: Look at it.\nWhich is it?\nA. a solid\nB. a gas{LETTER}",
    "mme": f"Is there a dog?{ONE_WORD}",
    "mmbench_en_dev_static": f"Which colour? There are several options:\nA. red\nB. blue\n{LETTER}",
    "mmstar": f"Which?\nOptions: A: red, B: blue, C: green, D: white{LETTER[:-1]}",
    "ocrbench": "what is written?",
    "docvqa_val": f"What is the date?{ONE_WORD}",
    "chartqa": "What is the value?\nAnswer the question with a single word.",
    "vstar_bench": f"Where is the dog?\nA. left\nB. right{LETTER}",
    "realworldqa": "Which way?\nA. Left\nB. Right\nPlease answer directly with only the letter.",
    "mmvet": "First please perform reasoning, and think step by step to provide best answer to the following question: "
    "\n\nWhat is x?",
}


def test_every_benchmark_of_lmms_eval_is_tried_here() -> None:
    assert {name for name, one in BENCHMARKS.items() if one.source == LMMS} == PROMPTS.keys()


@pytest.mark.parametrize("name", PROMPTS)
def test_prompt_image_and_size(name: str, data: Path) -> None:
    questions = TaskQuestions(name, data)
    assert questions.question(0).prompt == PROMPTS[name]
    for row in range(len(questions)):
        image = questions.image(row)
        assert image.mode == "RGB" and image.size == questions.size(row)


def test_gqa_finds_its_images_by_their_ids(data: Path) -> None:
    questions = TaskQuestions("gqa", data)
    assert [questions.size(row) for row in range(3)] == [(24, 64), (64, 24), (24, 64)]
    assert questions.image(0).tobytes() == questions.image(2).tobytes()


def test_right_answers(data: Path) -> None:
    answers = {name: TaskQuestions(name, data).question(1).answer for name in ("textvqa_val", "vqav2_val", "mme")}
    assert answers == {"textvqa_val": "one | two", "vqav2_val": "one | two", "mme": "No"}


def test_a_limit_and_other_images_are_other_questions(data: Path, tmp_path: Path) -> None:
    whole, few = TaskQuestions("pope", data), TaskQuestions("pope", data, limit=2)
    assert (len(whole), len(few)) == (6, 2)
    rows = schemas.pope()
    features = dict.fromkeys(rows[0], schemas.TEXT) | {"image": schemas.Image()}
    schemas.write(tmp_path / "pope/test.parquet", features, rows, seed=7)
    other = TaskQuestions("pope", tmp_path)
    assert len({whole.identity, few.identity, other.identity}) == 3
    assert whole.identity == TaskQuestions("pope", data).identity


def test_missing_data_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(QuestionsError, match="hf download lmms-lab-encoder/POPE --repo-type dataset --local-dir"):
        TaskQuestions("pope", tmp_path)
    with pytest.raises(QuestionsError, match="no benchmark that lmms-eval asks here"):
        TaskQuestions("viscot_cub", tmp_path)
