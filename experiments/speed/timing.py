"""Seconds of a choice, of the same choice step by step, and of a prefill, for experiments/benchmark_selection."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from experiments.speed import references
from experiments.speed.inputs import LAYERS, TEXT_BEHIND, TEXT_IN_FRONT, Inputs
from pruning.choosing.base import BeforeLLM, Method
from pruning.engine.contract import MergedTokens
from pruning.models import flops
from pruning.models.family import Family

CELL = 0.25  # seconds that the repeats of one case may take together


class Clock:
    """Seconds that something takes, on the wall or of this process's CPU time; a GPU is waited for."""

    def __init__(self, device: torch.device, kind: str) -> None:
        self.device = device
        self.now = time.perf_counter if kind == "wall" else time.process_time

    def __call__(self, function: Callable[[], Any]) -> float:
        self._wait()
        start = self.now()
        function()
        self._wait()
        return self.now() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def medians(timed: Mapping[Any, Callable[[], float]], repeats: int) -> dict[Any, float]:
    """Median seconds of each; they take turns. The first turn is a warm-up, and counts only where none follows."""
    taken = {name: [run()] for name, run in timed.items()}
    turns = {name: min(repeats, int(CELL / seconds)) if seconds else repeats for name, (seconds,) in taken.items()}
    for name, count in turns.items():
        if count:
            taken[name].clear()
    for turn in range(repeats):
        for name in (name for name, count in turns.items() if turn < count):
            taken[name].append(timed[name]())
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def ours(method: Method, inputs: Inputs, clock: Clock) -> float:
    """Seconds of all that a method chooses in one prefill."""
    if isinstance(method, BeforeLLM):
        return clock(lambda: method.select(inputs.observed()))
    return sum(
        clock(lambda seen=seen, counts=counts: method.choose(seen, counts))
        for seen, counts in inputs.observed_layers(method)
    )


def step_by_step(method: Method, inputs: Inputs, clock: Clock) -> float:
    """Seconds of the same choices, one token after the other."""
    if isinstance(method, BeforeLLM):
        return clock(lambda: references.BEFORE[method.name](method, inputs.observed()))
    inside = references.INSIDE[method.name]
    return sum(
        clock(lambda seen=seen, counts=counts: inside(method, seen, counts))
        for seen, counts in inputs.observed_layers(method)
    )


def same_choice(method: Method, inputs: Inputs) -> bool:
    """Whether both choose the same tokens."""
    if isinstance(method, BeforeLLM):
        chosen = method.select(inputs.observed())
        numbers = chosen.numbers_BT if isinstance(chosen, MergedTokens) else chosen
        return numbers.tolist() == references.BEFORE[method.name](method, inputs.observed())
    inside = references.INSIDE[method.name]
    return all(
        references.visual_places(method.choose(seen, counts), seen) == inside(method, seen, counts)
        for seen, counts in inputs.observed_layers(method)
    )


class Prefill:
    """Seconds of a prefill of `LAYERS` layers, from one layer."""

    def __init__(self, family: Family, limit: float) -> None:
        self.family, self.limit = family, limit
        self.text = family.language_model.config
        self.measured: tuple[int, int, float] = (0, 0, 0.0)  # images, tokens and seconds of the longest one run

    def runs(self, inputs: Inputs, clock: Clock) -> dict[str, Callable[[], float]]:
        """The layer on these inputs, where it can be expected to stay within the limit; else nothing."""
        images, tokens, _ = inputs.embeddings_BLD.shape
        expected = self._scaled(images, tokens) if self.measured[0] else 0.0
        if clock.device.type == "cpu" and (expected > self.limit or images > 1):
            return {}
        layer = self.family.layers[0]
        rotary = self.family.language_model.rotary_emb(inputs.embeddings_BLD, inputs.tokens.positions_ABS[0])

        def run() -> float:
            seconds = clock(lambda: layer(inputs.embeddings_BLD, attention_mask=None, position_embeddings=rotary))
            self.measured = images, tokens, seconds
            return seconds

        return {"layer": run}

    def seconds(self, images: int, num_visual: int, layer: float | None) -> tuple[float, str]:
        """Of the prefill, and what that is worked out from."""
        tokens = TEXT_IN_FRONT + num_visual + TEXT_BEHIND
        if layer is not None:
            self.measured = images, tokens, layer
            return LAYERS * layer, f"1 of {LAYERS} layers"
        source = f"1 of {LAYERS} layers, {self.measured[0]} x {self.measured[1]} tokens, by FLOPs"
        return LAYERS * self._scaled(images, tokens), source

    def _scaled(self, images: int, tokens: int) -> float:
        before, length, seconds = self.measured
        cost = images * flops.decoder_layer_flops(self.text, tokens, tokens)
        return seconds * cost / (before * flops.decoder_layer_flops(self.text, length, length))
