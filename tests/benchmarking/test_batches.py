"""Batches of equally many visual tokens, made ahead of time, and no more of them in memory than are on their way."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from experiments.asking.models import load
from experiments.benchmarking import batches
from experiments.benchmarking.questions import Question
from tests.benchmarking.tiny_deep import save_llava, save_qwen
from tests.tiny_models import FAMILIES
from tests.tiny_processors import save_tiny

SIZES = ((40, 24), (24, 40), (64, 24), (33, 77), (24, 24), (100, 30), (57, 91))


@dataclass
class Pictures:
    """Questions about pictures of many sizes; counts those in memory."""

    count: int
    name: str = "pictures"
    identity: str = "pictures"
    max_new_tokens: int | None = 2

    def __len__(self) -> int:
        return self.count

    def question(self, row: int) -> Question:
        return Question(str(row), "what colour is the circle ?" + " ?" * (row % 5), "red")

    def size(self, row: int) -> tuple[int, int]:
        return SIZES[row % len(SIZES)][0] + row // len(SIZES), SIZES[row % len(SIZES)][1]

    def image(self, row: int) -> Image.Image:
        return Image.new("RGB", self.size(row), "red")


def test_llava_batches_by_visual_tokens_not_by_picture_size(tmp_path: Path) -> None:
    """300 pictures of 254 sizes, 20 at a time: 15 batches."""
    model, processor = load(str(save_llava(tmp_path)), device="cpu")
    questions = Pictures(300)
    assert len({questions.size(row) for row in range(300)}) > 250
    assert batches.parts_of(300, 20) == 1
    groups = batches.rows_of_batches(processor, model.config, questions, range(300), 20)
    assert len(groups) == 15 and sorted(row for group in groups for row in group) == list(range(300))


@pytest.mark.parametrize("family", FAMILIES)
def test_visual_tokens_are_those_that_the_processor_makes(family: str, tmp_path: Path) -> None:
    model, processor = load(str(save_tiny(FAMILIES[family]()[0], tmp_path)), device="cpu")
    questions = Pictures(21)
    groups = batches.rows_of_batches(processor, model.config, questions, range(21), 4)
    assert sorted(row for group in groups for row in group) == list(range(21))
    counted = set()
    for group in groups:
        batch = batches.make_batch(processor, model.config, questions, group)  # raises where counts differ
        expected = batches.visual_tokens_of(processor, model.config, questions.size(group[0]))
        assert expected in (0, batch.visual_tokens)
        counted.add(batch.visual_tokens)
    assert len(counted) == 1 if family == "llava" else len(counted) > 3


def test_parts_are_questions_that_follow_each_other() -> None:
    rows = [row for part in range(batches.parts_of(100, 3)) for row in batches.rows_of_part(part, 100, 3)]
    assert rows == list(range(100)) and batches.parts_of(96, 3) == 2 and batches.parts_of(97, 3) == 3


def test_prefetching_keeps_the_order_works_ahead_and_holds_few() -> None:
    alive, most = set[int](), 0
    lock = threading.Lock()

    class Held:
        def __init__(self, number: int) -> None:
            nonlocal most
            self.number = number
            with lock:
                alive.add(number)
                most = max(most, len(alive))

        def __del__(self) -> None:
            with lock:
                alive.discard(self.number)

    seen = []
    for number, held in batches.prefetched(Held, range(50)):
        deadline = time.monotonic() + 5
        while len(alive) < min(1 + batches.AHEAD, 50 - number) and time.monotonic() < deadline:
            time.sleep(0.001)  # the next ones are made meanwhile
        assert {number + later for later in range(min(1 + batches.AHEAD, 50 - number))} <= alive
        assert held.number == number
        seen.append(number)
        del held
    assert seen == list(range(50)) and most <= 2 + batches.AHEAD


def test_an_error_while_preparing_reaches_the_caller() -> None:
    def make(number: int) -> int:
        if number == 3:
            raise ValueError("picture 3")
        return number

    with pytest.raises(ValueError, match="picture 3"):
        list(batches.prefetched(make, range(10)))


def held_pixels(processor: Any, config: Any, count: int) -> int:
    """The most bytes of pixels that are alive at a time while so many questions go through."""
    questions, alive, most = Pictures(count), dict[int, int](), 0
    lock = threading.Lock()

    class Noted:
        """A batch, and its end."""

        def __init__(self, batch: Any) -> None:
            nonlocal most
            self.batch, self.key = batch, id(self)
            with lock:
                alive[self.key] = batch.inputs["pixel_values"].nbytes
                most = max(most, sum(alive.values()))

        def __del__(self) -> None:
            with lock:
                alive.pop(self.key, None)

    def groups() -> Iterator[list[int]]:
        for part in range(batches.parts_of(count, 4)):
            rows = batches.rows_of_part(part, count, 4)
            yield from batches.rows_of_batches(processor, config, questions, rows, 4)

    for _, noted in batches.prefetched(
        lambda rows: Noted(batches.make_batch(processor, config, questions, rows)), groups()
    ):
        del noted
    return most


def test_memory_does_not_grow_with_the_number_of_questions(tmp_path: Path) -> None:
    model, processor = load(str(save_qwen(tmp_path)), device="cpu")
    one = max(
        batches.make_batch(processor, model.config, Pictures(400), [row] * 4).inputs["pixel_values"].nbytes
        for row in (0, 3, 399)
    )
    few, many = (held_pixels(processor, model.config, count) for count in (40, 400))
    assert few > 0 and many <= (2 + batches.AHEAD) * one
