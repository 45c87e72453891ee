"""Visual-CoT's sets: what is asked, and the judge that scores the answers, on a server on this machine."""

from pathlib import Path

import pyarrow as pa
import pytest

from experiments.benchmarking import judged, scored, stored
from experiments.benchmarking.named import BENCHMARKS, VISUAL_COT
from experiments.benchmarking.questions import QuestionsError
from experiments.benchmarking.stored import Run
from experiments.benchmarking.viscot import VisualCoT
from experiments.judge import JudgeError
from experiments.parameters.sections import Judge
from experiments.recorded.cells import write_table
from tests.benchmarking.judge_server import Server
from tests.benchmarking.tiny_deep import write_visual_cot

SYSTEM = """
You are responsible for proofreading the answers, you need to give a score to the model's answer by referring to the \
standard answer, based on the given question. The full score is 1 point and the minimum score is 0 points. Please \
output the score in the form "score: <score>". The evaluation criteria require that the closer the model's answer is \
to the standard answer, the higher the score.
"""


def stored_run(out: Path, questions: VisualCoT, predictions: list[str | None]) -> Run:
    keys = {"model": "tiny", "benchmark": questions.name, "method": "full", "setting": "full"}
    run = stored.make(out, keys, 1, len(questions), {"predictions": predictions})
    rows = [{"row": row, "id": str(row), "type": "all", "prediction": text} for row, text in enumerate(predictions)]
    for row in rows:
        row["answer"] = questions.question(int(str(row["id"]))).answer
    write_table(run.part(0), pa.Table.from_pylist(rows, schema=stored.SCHEMA))
    return run


def test_all_twelve_sets_and_their_brief_variants_are_known() -> None:
    names = [name for name, one in BENCHMARKS.items() if one.source == VISUAL_COT]
    assert len(names) == 24 and sum(BENCHMARKS[name].questions for name in names if "brief" not in name) == 9281


def test_what_is_asked(tmp_path: Path) -> None:
    data = write_visual_cot(tmp_path, "cub", 4)
    question = VisualCoT("viscot_cub", data).question(1)
    assert question.prompt == "what colour is the circle ? ?" and question.answer == "red 1"
    assert question.boxes == [[0, 0, 0.5, 0.5]]
    brief = VisualCoT("viscot_cub_brief", data).question(1)
    assert brief.prompt == question.prompt + "\n\nAnswer the question using a single word or phrase."
    assert brief.further == question.further, "the judge is told the same question"
    assert len(VisualCoT("viscot_cub", data, limit=3)) == 3


def test_images_are_found_in_the_folder_val_too(tmp_path: Path) -> None:
    data = write_visual_cot(tmp_path, "cub", 1)
    (data / "cot/cub/val").mkdir()
    (data / "cot/cub/0.png").rename(data / "cot/cub/val/0.png")
    assert VisualCoT("viscot_cub", data).image(0).size == (40, 24)
    (data / "cot/cub/val/0.png").unlink()
    with pytest.raises(QuestionsError, match="the image .*cot/cub/0.png is missing"):
        VisualCoT("viscot_cub", data)


def test_files_of_another_form_and_missing_ones(tmp_path: Path) -> None:
    data = write_visual_cot(tmp_path, "cub", 2)
    with pytest.raises(QuestionsError, match="gqa.json is missing"):
        VisualCoT("viscot_gqa", data)
    with pytest.raises(QuestionsError, match="give --data"):
        VisualCoT("viscot_cub")
    (data / "benchmark/cub.json").write_text('[{"image": ["a.png"], "conversations": [{"value": "what"}]}]')
    with pytest.raises(QuestionsError, match="is not as Visual-CoT's files are: IndexError"):
        VisualCoT("viscot_cub", data)


def test_the_judge_is_asked_in_the_authors_words_and_keeps_its_replies(server: Server, tmp_path: Path) -> None:
    questions = VisualCoT("viscot_cub", write_visual_cot(tmp_path, "cub", 3))
    run = stored_run(tmp_path / "out", questions, ["red 0", "blue", None])
    judge = Judge(url=f"http://127.0.0.1:{server.server_port}/v1", model="Qwen/judge")
    judged.score([run], questions, judge, judged.GLIMPSEPRUNE, tmp_path / "out")
    table = scored.read(tmp_path / "out", run)
    assert table["score"].tolist()[:2] == [1.0, 0.5] and table["score"].isna().tolist() == [False, False, True]
    assert table["correct"].tolist()[0] is True and table["correct"].isna().tolist() == [False, True, True]
    assert len(server.requests) == 2, "what was not answered is not judged"
    body = min(server.requests, key=lambda one: "blue" in one["messages"][1]["content"])
    assert body["messages"][0] == {"role": "system", "content": SYSTEM}
    told = "\nquestion: <image>\nwhat colour is the circle ? \nstandard answer: red 0\nmodel's answer: red 0\n"
    assert body["messages"][1]["content"].replace("? \n", "?\n") == told.replace("? \n", "?\n")
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 512, "Qwen/judge")
    scored.path(tmp_path / "out", run).unlink()
    judged.score([run], questions, judge, judged.GLIMPSEPRUNE, tmp_path / "out")
    assert len(server.requests) == 2, "replies are kept"
    assert (tmp_path / "out/judge/judge.jsonl").exists()


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("score: 0.8", 0.8),
        ("Score: 1", 1),
        ("score: 7", 1),  # never above 1
        ("score: 0.5, or score: 0.6", 0),  # as the authors: one score or none
        ("It is fine", 0),
        ("score: .", 0),
    ],
)
def test_replies_are_read_as_the_authors_read_them(reply: str, score: float) -> None:
    assert judged.read_score(reply) == score


def test_a_missing_judge_is_one_clear_error(tmp_path: Path) -> None:
    questions = VisualCoT("viscot_cub", write_visual_cot(tmp_path, "cub", 1))
    with pytest.raises(JudgeError, match="name it under the recipe's `judge`"):
        judged.score([], questions, None, judged.GLIMPSEPRUNE, tmp_path)
