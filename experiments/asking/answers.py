"""A benchmark's questions in batches, and a pruned model's answers to them."""

import copy
import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import chain
from queue import SimpleQueue
from typing import Any, TypeVar

import torch
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin

from experiments.asking.boxes import seen_boxes
from experiments.asking.evidence import evidence_of
from experiments.asking.flops import flops_of
from experiments.asking.inputs import build_inputs
from experiments.recorded.kept import changes_of
from pruning.choosing.base import Method
from pruning.choosing.budget import InfeasibleBudget
from pruning.engine.encoded import EncodedImages
from pruning.engine.record import Record
from pruning.models import flops
from pruning.registry import solve

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Batch:
    """Questions that run together.

    Attributes:
        rows: their rows in the benchmark.
        questions: their columns but for the image; boxes in the frame that the vision tower sees.
        inputs: what the model takes, on the CPU.
        visual_tokens: visual tokens of each prompt; images of one size have equally many.
    """

    rows: list[int]
    questions: list[dict[str, Any]]
    inputs: dict[str, torch.Tensor]
    visual_tokens: int


def rows_of_batches(benchmark: Dataset, batch_size: int) -> list[list[int]]:
    """Rows of a benchmark that run together: images of one size and questions of similar length."""
    sizes = [image.size for image in benchmark["image"]]
    lengths = [len(question) for question in benchmark["question"]]
    batches = []
    for size in sorted(set(sizes)):
        same = sorted((row for row in range(len(sizes)) if sizes[row] == size), key=lambda row: (lengths[row], row))
        batches += [same[start : start + batch_size] for start in range(0, len(same), batch_size)]
    return batches


def make_batches(processor: ProcessorMixin, config: Any, benchmark: Dataset, batch_size: int) -> Iterator[Batch]:
    """Preprocess a benchmark in the batches of `rows_of_batches`."""
    asked = benchmark.remove_columns("image").to_list()
    for rows in rows_of_batches(benchmark, batch_size):
        questions = [asked[row] for row in rows]
        images = benchmark[rows]["image"]
        for question in questions:
            question["boxes"] = seen_boxes(question["boxes"], images[0].size, processor.image_processor)
        inputs = dict(build_inputs(processor, images, [question["question"] for question in questions]))
        yield Batch(rows, questions, inputs, int((inputs["input_ids"][0] == config.image_token_id).sum()))


@contextmanager
def side_by_side(model: PreTrainedModel) -> Iterator[list[PreTrainedModel]]:
    """The model as often as batches should run at a time: once on a GPU, on a CPU once for each of torch's threads.

    The copies share their weights, so that each can have its own hooks. Inside the context every operation runs on one
    thread: batches that run side by side never wait for each other, as the threads inside an operation do.
    """
    threads = torch.get_num_threads()
    copies = [model]
    for _ in range(threads - 1 if model.device.type == "cpu" else 0):
        shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        copies.append(copy.deepcopy(model, shared))
    if len(copies) > 1:
        torch.set_num_threads(1)
    try:
        yield copies
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Plan:
    """One method at one budget.

    Attributes:
        cell: method, budget, feasible and, where not feasible, the floor: the least mean visual tokens it can reach.
        methods: by number of visual tokens; None where not feasible.
    """

    cell: dict[str, Any]
    methods: dict[int, Method] | None


def plan(name: str, budget: float, fixed: dict[str, Any], config: Any, batches: list[Batch]) -> Plan:
    """Solve the method's parameter for every number of visual tokens that occurs."""
    cell = {"method": name, "budget": budget, "feasible": True, "floor": None}
    layers = config.get_text_config().num_hidden_layers
    try:
        return Plan(
            cell,
            {
                count: solve(name, budget * count, num_visual=count, num_layers=layers, **fixed)
                for count in sorted({batch.visual_tokens for batch in batches})
            },
        )
    except InfeasibleBudget as error:
        return Plan(cell | {"feasible": False, "floor": error.floor}, None)


def answer_all(
    copies: list[PreTrainedModel],
    processor: ProcessorMixin,
    methods: Mapping[Key, Mapping[int, Method]],
    batches: Sequence[Batch],
    max_new_tokens: int,
) -> Iterator[dict[Key, dict[int, dict[str, Any]]]]:
    """Answers of many methods to the same batches, one batch after the other.

    The vision tower and the projector run once for a batch, and every method prunes what came out
    (`pruning.EncodedImages`): fewer seconds, and the same bits in every answer. So hand over all budgets, or all
    settings of an ablation, in one call. Methods that change the tower (ToMe) encode the images anew each time.

    Args:
        copies: as `side_by_side` gives them.
        methods: by any key (a budget, a setting), and then by number of visual tokens.
        batches: of `make_batches`.

    Yields:
        For one batch, for every key, the rows of a prediction table (without the budget) by their row in the benchmark.

    Example:
        methods = {k: {144: pruning.make("fastv", k=k, r=0.5)} for k in (1, 2, 3)}
        for answered in answer_all(copies, processor, methods, batches, max_new_tokens=8):
            for k, rows in answered.items():
                tables[k] |= rows
    """
    free: SimpleQueue[PreTrainedModel] = SimpleQueue()
    for model in copies:
        free.put(model)

    def run(batch: Batch) -> dict[Key, dict[int, dict[str, Any]]]:
        model = free.get()
        try:
            chosen = {key: by_count[batch.visual_tokens] for key, by_count in methods.items()}
            answered = answer_batch(model, processor, chosen.values(), batch, max_new_tokens)
            return dict(zip(chosen, answered, strict=True))
        finally:
            free.put(model)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(run, batches)


@torch.inference_mode()
def answer_batch(
    model: PreTrainedModel, processor: ProcessorMixin, methods: Iterable[Method], batch: Batch, max_new_tokens: int
) -> list[dict[int, dict[str, Any]]]:
    """Answers of one method after the other to one batch, whose images are encoded once; see `answer_all`."""
    images_of = flops.images_of(model.config, batch.inputs)
    evidence = [evidence_of(question["boxes"], batch.visual_tokens) for question in batch.questions]
    inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
    encoded: EncodedImages | None = None
    tables = []
    for method in methods:
        if encoded is None and not method.changes_tower:
            encoded = EncodedImages(model, inputs)
        images = None if method.changes_tower else encoded
        texts, record = answer(model, processor, method.for_questions(batch.questions), inputs, max_new_tokens, images)
        tables.append(describe(method, batch, texts, record, model.config, images_of, evidence))
    return tables


@torch.inference_mode()
def answer(
    model: Any,
    processor: Any,
    method: Method,
    prompt: Mapping[str, torch.Tensor],
    max_new_tokens: int,
    images: EncodedImages | None = None,
) -> tuple[list[str], Record]:
    """Greedy continuations of a left-padded batch, stripped, and what the method did during prefill.

    `images` are those of the prompt where they are encoded already.
    """
    if images is None:
        pruned, inputs = method(model), {name: tensor.to(model.device) for name, tensor in prompt.items()}
    else:
        pruned, inputs = method(model, images), images.inputs
    with pruned as record:
        tokens = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=method.uses_cache,
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    new = tokens[:, prompt["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)], record


def describe(
    method: Method,
    batch: Batch,
    texts: list[str],
    record: Record,
    config: Any,
    images: list[list[Any]],
    evidence: list[list[int] | None],
) -> dict[int, dict[str, Any]]:
    """What `experiments.evaluate` writes about each question, but for the budget."""
    parameters = method.written()
    text_tokens = (batch.inputs["attention_mask"].sum(1) - batch.visual_tokens).tolist()
    per_layer, kept, merged = record.visual_tokens, record.kept, record.merged

    @cache  # most questions share their shape with others
    def counted(text: int, sizes: str, layers: tuple[int, ...]) -> dict[str, float]:
        return flops_of(config, method, text, json.loads(sizes), batch.visual_tokens, layers)

    return {
        row: {
            "id": batch.questions[sample]["id"],
            "type": batch.questions[sample]["type"],
            "method": method.name,
            "parameters": json.dumps(parameters),
            "prediction": texts[sample],
            "answer": batch.questions[sample]["answer"],
            "correct": matches(texts[sample], batch.questions[sample]["answer"]),
            "text_tokens": text_tokens[sample],
            "images": json.dumps(images[sample]),
            "visual_tokens": batch.visual_tokens,
            "visual_tokens_per_layer": per_layer[sample],
            "flops": counted(text_tokens[sample], json.dumps(images[sample]), tuple(per_layer[sample])),
            "evidence": evidence[sample],
            "kept": changes_of(kept[sample], batch.visual_tokens),
            "merged": [{"token": token, "of": members} for token, members in merged[sample].items()],
        }
        for sample, row in enumerate(batch.rows)
    }


def matches(prediction: str, answer: str) -> bool:
    """Whether a prediction is the answer, case and surrounding blanks aside."""
    return prediction.strip().casefold() == answer.strip().casefold()
