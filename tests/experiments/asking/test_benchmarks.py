"""What is asked: a balanced subset of questions with one right answer."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from experiments.asking import benchmarks
from tests.experiments.workspace import write_benchmark


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_benchmark(tmp_path / "data/scenes/evaluation.parquet", 30)
    return tmp_path


def test_all_questions_with_one_answer_in_the_order_of_the_file(folder: Path) -> None:
    questions = benchmarks.load("scenes")
    assert questions["id"][:] == [f"q{number:03d}" for number in range(30) if number % 3 < 2]
    assert questions[0]["image"].size == (24, 24)
    assert questions[0]["boxes"] == [pytest.approx([0, 0, 0.5, 0.33])]


def test_a_subset_is_balanced_ordered_and_repeatable(folder: Path) -> None:
    first, again, other = (benchmarks.load("scenes", 8, seed) for seed in (0, 0, 1))
    assert Counter(first["type"]) == {"attribute": 4, "counting": 4}
    assert first["id"][:] == sorted(first["id"]) == again["id"][:] != other["id"][:]


def test_small_types_are_taken_whole() -> None:
    types = np.array(["a"] * 100 + ["b"] * 3 + ["c"] * 50)
    assert Counter(types[benchmarks.balanced(types, 31, 0)]) == {"a": 14, "b": 3, "c": 14}


def test_every_question_has_the_same_chance() -> None:
    types = np.array(["a", "b"] * 10)
    drawn = Counter(int(row) for seed in range(400) for row in benchmarks.balanced(types, 10, seed))
    assert len(drawn) == 20 and all(150 < count < 250 for count in drawn.values())


def test_bad_input(folder: Path) -> None:
    with pytest.raises(ValueError, match="21 questions asked for, but the benchmark has 20"):
        benchmarks.load("scenes", 21)
    with pytest.raises(ValueError, match="unknown benchmark 'gqa'; known: scenes"):
        benchmarks.load("gqa")
    (folder / "data/scenes/evaluation.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="dvc repro scenes"):
        benchmarks.load("scenes")
