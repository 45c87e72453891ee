"""Questions in batches of equally many visual tokens, preprocessed while the model answers the batch before.

Only the batches on their way are in memory: the peak does not grow with the number of questions.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from transformers import ProcessorMixin

from experiments.asking.answers import Batch
from experiments.asking.boxes import seen_boxes
from experiments.asking.inputs import build_inputs
from experiments.benchmarking.questions import Questions

Given = TypeVar("Given")
Made = TypeVar("Made")
BATCHES_A_PART = 16
AHEAD = 2


def rows_of_part(number: int, count: int, batch_size: int) -> range:
    """The questions of one part: as many as fill `BATCHES_A_PART` batches, the last part what is left."""
    size = batch_size * BATCHES_A_PART
    return range(number * size, min(count, (number + 1) * size))


def parts_of(count: int, batch_size: int) -> int:
    """How many parts so many questions are."""
    return -(-count // (batch_size * BATCHES_A_PART))


def visual_tokens_of(processor: ProcessorMixin, config: Any, size: tuple[int, int]) -> int:
    """Visual tokens of an image of `size` (width, height) in pixels; 0 for a model that has as many for every image."""
    if config.model_type == "llava":
        return 0
    width, height = size
    return int(processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"][0])


def rows_of_batches(
    processor: ProcessorMixin, config: Any, questions: Questions, rows: Iterable[int], batch_size: int
) -> list[list[int]]:
    """The rows of a part in batches: of equally many visual tokens, and prompts of similar length."""
    lengths = {row: len(questions.question(row).prompt) for row in rows}
    counts = {row: visual_tokens_of(processor, config, questions.size(row)) for row in lengths}
    batches = []
    for count in sorted(set(counts.values())):
        same = sorted((row for row in counts if counts[row] == count), key=lambda row: (lengths[row], row))
        batches += [same[start : start + batch_size] for start in range(0, len(same), batch_size)]
    return batches


def make_batch(processor: ProcessorMixin, config: Any, questions: Questions, rows: list[int]) -> Batch:
    """Decode and preprocess the images of some rows, with their prompts.

    Raises:
        RuntimeError: they do not have equally many visual tokens, which `rows_of_batches` promises.
    """
    asked = [questions.question(row) for row in rows]
    images = [questions.image(row) for row in rows]
    inputs = dict(build_inputs(processor, images, [question.prompt for question in asked]))
    counts = (inputs["input_ids"] == config.image_token_id).sum(dim=1).tolist()
    if len(set(counts)) > 1:
        raise RuntimeError(f"{questions.name}: images of one batch have {sorted(set(counts))} visual tokens")
    described = [
        {"id": question.id, "type": question.type, "answer": question.answer}
        | ({} if question.boxes is None else {"boxes": _seen(question.boxes, image.size, processor)})
        for question, image in zip(asked, images, strict=True)
    ]
    return Batch(rows, described, inputs, counts[0])


def _seen(boxes: list[list[float]], size: tuple[int, int], processor: ProcessorMixin) -> list[list[float]]:
    return seen_boxes(boxes, size, processor.image_processor)


def prefetched(
    make: Callable[[Given], Made], given: Iterable[Given], ahead: int = AHEAD
) -> Iterator[tuple[Given, Made]]:
    """What `make` makes of each thing given, in order, made in another thread up to `ahead` before it is asked for."""
    waiting: deque[tuple[Given, Future[Made]]] = deque()
    # One thread: tokenizers are not to be called from several.
    with ThreadPoolExecutor(1) as pool:
        try:
            for one in given:
                waiting.append((one, pool.submit(make, one)))
                if len(waiting) > ahead:
                    first, made = waiting.popleft()
                    yield first, made.result()
                    del made
            while waiting:
                first, made = waiting.popleft()
                yield first, made.result()
                del made
        finally:
            for _, made in waiting:
                made.cancel()
