"""A benchmark's questions in batches, and a pruned model's answers to them."""

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from queue import SimpleQueue
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, ProcessorMixin

from analysis import flops
from experiments import clip
from experiments.boxes import seen_boxes
from experiments.inputs import build_inputs
from pruning.base import Method
from pruning.record import Record


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


def make_batches(processor: ProcessorMixin, config: Any, benchmark: Dataset, batch_size: int) -> Iterator[Batch]:
    """Preprocess a benchmark in batches of images of one size and questions of similar length."""
    asked = benchmark.remove_columns("image").to_list()
    sizes = [image.size for image in benchmark["image"]]
    for size in sorted(set(sizes)):
        same = [row for row in range(len(asked)) if sizes[row] == size]
        same.sort(key=lambda row: (len(asked[row]["question"]), row))
        for start in range(0, len(same), batch_size):
            rows = same[start : start + batch_size]
            questions = [asked[row] for row in rows]
            images = benchmark[rows]["image"]
            for question in questions:
                question["boxes"] = seen_boxes(question["boxes"], size, processor.image_processor)
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


def answer_all(
    copies: list[PreTrainedModel],
    processor: ProcessorMixin,
    methods: Mapping[int, Method],
    batches: list[Batch],
    max_new_tokens: int,
) -> Iterator[dict[int, dict[str, Any]]]:
    """Answers of one batch after the other: the rows of a prediction table by their row in the benchmark.

    `methods` are by number of visual tokens; `copies` as `side_by_side` gives them.
    """
    free: SimpleQueue[PreTrainedModel] = SimpleQueue()
    for model in copies:
        free.put(model)

    def run(batch: Batch) -> dict[int, dict[str, Any]]:
        model = free.get()
        try:
            method = methods[batch.visual_tokens]
            texts, record = answer(model, processor, fit(method, batch.questions), batch.inputs, max_new_tokens)
            return describe(method, batch, texts, record, flops.images_of(model.config, batch.inputs))
        finally:
            free.put(model)

    with ThreadPoolExecutor(len(copies)) as pool:
        yield from pool.map(run, batches)


def fit(method: Method, questions: list[dict[str, Any]]) -> Method:
    """The method for one batch: the oracle is told the evidence boxes, CDPruner with CLIP the questions."""
    own: dict[str, Any] = {}
    if any(field.name == "boxes" for field in dataclasses.fields(method)):
        own["boxes"] = [question["boxes"] for question in questions]
    if model := getattr(method, "clip", None):
        own["questions"] = clip.segments(model, [question["question"] for question in questions])
    if parts := getattr(method, "methods", None):
        own["methods"] = [fit(part, questions) for part in parts]
    return dataclasses.replace(method, **own) if own else method


@torch.inference_mode()
def answer(
    model: Any, processor: Any, method: Method, prompt: Mapping[str, torch.Tensor], max_new_tokens: int
) -> tuple[list[str], Record]:
    """Greedy continuations of a left-padded batch, stripped, and what the method did during prefill."""
    on_device = {name: tensor.to(model.device) for name, tensor in prompt.items()}
    with method(model) as record:
        tokens = model.generate(
            **on_device,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            use_cache=getattr(method, "mode", "static") != "repeat",
            pad_token_id=processor.tokenizer.pad_token_id,
        )
    new = tokens[:, prompt["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)], record


def describe(
    method: Method, batch: Batch, texts: list[str], record: Record, images: list[list[Any]]
) -> dict[int, dict[str, Any]]:
    """What `experiments.evaluate` writes about each question, but for the budget."""
    parameters = parameters_of(method)
    text_tokens = (batch.inputs["attention_mask"].sum(1) - batch.visual_tokens).tolist()
    per_layer, kept = record.visual_tokens, record.kept
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
            "kept": changes_of(kept[sample], batch.visual_tokens),
        }
        for sample, row in enumerate(batch.rows)
    }


def parameters_of(method: Method) -> dict[str, Any]:
    """A method's parameters as params.yaml would have them; what belongs to single questions is left out."""
    parameters = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    for own in ("boxes", "questions"):
        parameters.pop(own, None)
    if model := parameters.get("clip"):
        parameters["clip"] = model.config.name_or_path
    if parts := parameters.get("methods"):
        parameters["methods"] = [{"name": part.name, **parameters_of(part)} for part in parts]
    return parameters


def matches(prediction: str, answer: str) -> bool:
    """Whether a prediction is the answer, case and surrounding blanks aside."""
    return prediction.strip().casefold() == answer.strip().casefold()


def changes_of(kept: list[torch.Tensor], visual_tokens: int) -> list[dict[str, Any]]:
    """The layers whose visual tokens differ from those of the layer before, with their indices."""
    changes, before = [], list(range(visual_tokens))
    for layer, indices in enumerate(kept):
        if len(before) != len(indices) or before != indices.tolist():
            before = indices.tolist()
            changes.append({"layer": layer, "indices": before})
    return changes
