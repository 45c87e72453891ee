"""What can be guessed without the picture."""

import pytest

from experiments.asking import benchmarks
from experiments.blind import chance


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("is there a red circle ?", "no", 1 / 2),
        ("what color is the star ?", "red", 1 / 6),
        ("what shape is the red object ?", "star", 1 / 5),
        ("what character is on the red cross ?", "4", 1 / 8),
        ("is the red circle left or right of the blue star ?", "left", 1 / 2),
        ("how many circles are there ?", "3", 1 / 3),
        ("where is the red circle ?", "middle left", 1 / 9),
        ("what shape is the object with the color of the dot ?", "star", 1 / 5),
    ],
)
def test_chance_is_a_guess_among_the_answers_that_the_question_allows(question, answer, expected):
    assert chance(question, answer) == pytest.approx(expected)


def test_every_question_of_the_benchmark_has_a_chance():
    questions = benchmarks.load("scenes").remove_columns("image")
    assert all(0 < chance(row["question"], row["answer"]) <= 0.5 for row in questions)


def test_an_answer_of_no_kind_is_an_error():
    with pytest.raises(ValueError, match="'grey' is no answer of the scenes"):
        chance("what color is the star ?", "grey")
