"""Kernels that are launched while a method chooses, counted by PyTorch's profiler."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from experiments.gpu import methods
from experiments.gpu.output import Deadline, message
from experiments.gpu.shapes import Shape
from pruning.choosing.base import Method
from pruning.engine.record import Record

COLUMNS = ("model", "visual_tokens", "keep", "method", "launches", "copies", "operators", "error")
CHOOSING = "choosing tokens"


@torch.inference_mode()
def rows(shape: Shape, device: torch.device, deadline: Deadline) -> Iterator[dict[str, Any]]:
    """One for each method at the first number of tokens to keep."""
    model = shape.build(device, torch.float32 if device.type == "cpu" else torch.bfloat16)
    inputs = shape.inputs(device, model.dtype)
    modules, layers = shape.modules(model), shape.config.get_text_config().num_hidden_layers
    keep = shape.keeps[0]
    for name in methods.NAMES:
        if deadline.over:
            break
        row = {"model": shape.name, "visual_tokens": shape.visual_tokens, "keep": keep, "method": name}
        try:
            method = methods.method_at(name, keep, shape.visual_tokens, layers, modules)
            if method is None:
                continue
            row |= counted(model, inputs, method)
        except Exception as error:  # out of reach, or the profiler of an unknown device may do anything
            row["error"] = message(error)
        yield row


def counted(model: Any, inputs: dict[str, Any], method: Method) -> dict[str, int | None]:
    """Launches and copies (None on a CPU), and PyTorch's operators, inside what the record counts as choosing."""
    cuda = model.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with method(model) as record:
        model(**inputs, use_cache=True, logits_to_keep=1)  # what runs for the first time launches more
        with _marked(record), profile(activities=activities) as profiler:
            model(**inputs, use_cache=True, logits_to_keep=1)
            if cuda:
                torch.cuda.synchronize()
    events = list(profiler.events())
    spans = [(one.time_range.start, one.time_range.end) for one in events if one.name == CHOOSING and on_host(one)]
    inside = [
        one.name
        for one in events
        if on_host(one) and any(start <= one.time_range.start and one.time_range.end <= end for start, end in spans)
    ]
    launches = sum("LaunchKernel" in name or "GraphLaunch" in name for name in inside)
    copies = sum("Memcpy" in name or "Memset" in name for name in inside)
    operators = sum(name.startswith("aten::") for name in inside)
    return {"launches": launches if cuda else None, "copies": copies if cuda else None, "operators": operators}


def on_host(event: Any) -> bool:
    return bool(event.device_type == torch.autograd.DeviceType.CPU)


@contextmanager
def _marked(record: Record) -> Iterator[None]:
    """Name what this record counts as choosing in the profile."""
    choosing = record.choosing

    @contextmanager
    def named(device: torch.device) -> Iterator[None]:
        with record_function(CHOOSING), choosing(device):
            yield

    record.choosing = named  # type: ignore[method-assign]
    try:
        yield
    finally:
        del record.choosing
