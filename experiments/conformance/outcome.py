"""What one golden case came to, and what makes a folder of them unreadable."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Verdict = Literal["agree", "differ", "unsupported"]


class MalformedGolden(Exception):
    """The golden data themselves are missing or unreadable, which says nothing about the methods."""


@dataclass(frozen=True)
class Outcome:
    """`difference` holds the first thing that differs, or for `unsupported` what there is no runner for."""

    case: str
    method: str
    verdict: Verdict
    difference: str = ""


class Case(Mapping[str, Any]):
    """Named fields of one case; a missing one is the golden data's fault and is reported with the file's name."""

    def __init__(self, source: str, fields: Mapping[str, Any]) -> None:
        self.source = source
        self._fields = fields

    def __getitem__(self, name: str) -> Any:
        if name not in self._fields:
            raise MalformedGolden(f"{self.source}: '{name}' is missing")
        return self._fields[name]

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def part(self, name: str) -> "Case":
        """A field that is itself a table of fields."""
        value = self[name]
        if not isinstance(value, Mapping):
            raise MalformedGolden(f"{self.source}: '{name}' should be a JSON object, not {type(value).__name__}")
        return Case(f"{self.source}: {name}", value)


def read_npz(path: Path) -> Case:
    """The arrays of an .npz file as tensors, `params` (where there is one) decoded from JSON.

    Raises:
        MalformedGolden: the file is missing, truncated or no .npz, or its `params` is not JSON.
    """
    fields: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                fields[name] = json.loads(str(arrays[name])) if name == "params" else torch.from_numpy(arrays[name])
    except Exception as error:  # np.load raises whatever zip, zlib, pickle and json each raise
        raise MalformedGolden(f"{path}: cannot be read as .npz ({type(error).__name__}: {error})") from error
    return Case(str(path), fields)


def first_difference(name: str, ours: Tensor, golden: Tensor, tolerance: float) -> str:
    """Where two arrays first differ, in words; empty if they agree. Integers and booleans are compared exactly."""
    if ours.shape != golden.shape:
        return f"{name}: shape {list(ours.shape)}, golden {list(golden.shape)}"
    if golden.is_floating_point():
        wrong = ~torch.isclose(ours.to(golden.dtype), golden, rtol=0.0, atol=tolerance)
    else:
        wrong = ours != golden
    if not wrong.any():
        return ""
    place = tuple(wrong.nonzero()[0].tolist())
    more = f"; {int(wrong.sum())} of {wrong.numel()} differ"
    return f"{name}{list(place) or ''}: {ours[place].item():.6g}, golden {golden[place].item():.6g}{more}"
