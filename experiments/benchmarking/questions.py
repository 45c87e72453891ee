"""What is asked: questions about one image each, of which only those are in memory that are being answered."""

from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image


@dataclass(frozen=True)
class Question:
    """One question, without its image.

    Attributes:
        id: unique in the benchmark.
        prompt: the whole text, without the model's chat template.
        answer: what is right, as text: for readers, and for a judge.
        type: a kind of question, or "all".
        boxes: evidence, [x0, y0, x1, y1] each, in 0..1 of the image; None where the benchmark has none.
        further: what scoring needs beside the text.
    """

    id: str
    prompt: str
    answer: str
    type: str = "all"
    boxes: list[list[float]] | None = None
    further: dict[str, Any] | None = None


class Questions(Protocol):
    """A benchmark's questions in its own order.

    Attributes:
        name: a key of experiments.benchmarking.named.BENCHMARKS.
        identity: what stands for prompts, images and right answers; other questions have another.
        max_new_tokens: the benchmark's own, or None.
    """

    name: str
    identity: str
    max_new_tokens: int | None

    def __len__(self) -> int: ...

    def question(self, row: int) -> Question: ...

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of the image in pixels, without decoding it."""
        ...

    def image(self, row: int) -> Image.Image:
        """The image, RGB, decoded."""
        ...


class QuestionsError(ValueError):
    """A benchmark that cannot be asked; the message says why and what to do."""
