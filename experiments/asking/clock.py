"""What a generation took: when its tokens came, and the size of its KV cache."""

import time
from typing import Any

import torch
from transformers.generation import BaseStreamer

MB = 2**20


class Clock(BaseStreamer):
    """Notes when generation takes the prompt, and when each new token arrives on the CPU: the device is done then."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.seconds.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""


def cache_mb(output: Any) -> float:
    """Keys and values of all layers."""
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in output.past_key_values.layers) / MB
