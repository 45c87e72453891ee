"""Prefill, decoding and memory of every method on a model of random weights, beside the full and the short prompt's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.gpu import methods
from experiments.gpu.output import Deadline, message
from experiments.gpu.shapes import Shape
from experiments.gpu.timing import Run, Short
from pruning.choosing.base import Method
from pruning.choosing.budget import mean_visual_tokens
from pruning.engine.encoded import EncodedImages
from pruning.models import flops
from pruning.models.sizes import Sizes

MEASURES = ("prefill_ms", "decoder_ms", "choosing_ms", "decode_ms", "peak_memory_mb", "kv_cache_mb")
RATIOS = ("prefill", "decoder", "decode")
COLUMNS = (
    "model", "dtype", "batch", "visual_tokens", "text_tokens", "keep", "method", "mean_visual_tokens",
    "last_visual_tokens", "repeats",
    *(f"{name}{end}" for name in MEASURES for end in (("", "_low", "_high") if name.endswith("_ms") else ("",))),
    *(f"{name}_to_{other}{end}" for name in RATIOS for other in ("full", "short") for end in ("", "_low", "_high")),
    "prefill_tflops", "choosing_tflops", "error",
)  # fmt: skip
FULL, SHORT = "full", "native_short"
REPEATS = 9
DECODED = (0, 2, 4)  # rounds that go on to decode, which takes longest


class Cell:
    """One line of the report while it is measured."""

    def __init__(self, keep: int | None, method: str, run: Run | Short | None, error: str = "") -> None:
        self.keep, self.method, self.run, self.error = keep, method, run, error
        self.rounds: dict[int, dict[str, float]] = {}

    def measure(self, turn: int) -> None:
        """One round; an error ends the cell, not the report."""
        if self.run is None or self.error:
            return
        found: dict[str, float] = {}
        for one in (self.run.prefill, self.run.decoder, self.run.decode):
            try:
                if one != self.run.decode or turn in DECODED:
                    found |= one()
            except Exception as error:  # whatever happens on an unknown device, the other lines are to be measured
                self.error = message(error)
                break
        if turn >= 0 and found:
            self.rounds[turn] = found

    def values(self, name: str) -> dict[int, float]:
        return {turn: found[name] for turn, found in self.rounds.items() if name in found}


class Report:
    """All lines of one model."""

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device = shape, device
        self.model = shape.build(device, dtype)
        self.inputs = shape.inputs(device, dtype)
        self.images = EncodedImages(self.model, self.inputs)
        self.layers = shape.config.get_text_config().num_hidden_layers
        modules = shape.modules(self.model)
        self.full = Cell(None, FULL, Run(self.model, self.inputs, self.images, None))
        self.full.run.per_layer = [[shape.visual_tokens] * self.layers] * shape.batch  # type: ignore[union-attr]
        self.cells = [self.full]
        for keep in shape.keeps:
            self.cells.append(Cell(keep, SHORT, Short(self.model, self.inputs, self.images, keep)))
            for name in methods.NAMES:
                cell = self._cell(name, keep, modules)
                if cell is not None:
                    self.cells.append(cell)

    def _cell(self, name: str, keep: int, modules: Any) -> Cell | None:
        try:
            method = methods.method_at(name, keep, self.shape.visual_tokens, self.layers, modules)
        except Exception as error:  # out of reach, or as above
            return Cell(keep, name, None, message(error))
        if method is None:
            return None
        return Cell(keep, name, Run(self.model, self.inputs, self.images, method))

    @torch.inference_mode()
    def measure(self, deadline: Deadline, save: Callable[[], None], repeats: int = REPEATS) -> None:
        """Warm up, then rounds over all lines in an order drawn anew, until the time is over.

        The first two rounds go in the order of importance, budget by budget, so that a report that is cut short has
        whole budgets.
        """
        order = np.random.default_rng(0)
        self.full.measure(-1)
        for keep in self.shape.keeps:
            of_budget = [cell for cell in self.cells if cell.keep == keep]
            for turn in (-1, 0):
                for cell in (self.full, *of_budget):
                    if deadline.over:
                        return
                    if cell is not self.full or turn not in self.full.rounds:
                        cell.measure(turn)
            save()
        for turn in range(1, repeats):
            for place in order.permutation(len(self.cells)):
                if deadline.over:
                    return
                self.cells[place].measure(turn)
            save()

    def rows(self) -> list[dict[str, Any]]:
        """The lines as they stand."""
        shorts = {cell.keep: cell for cell in self.cells if cell.method == SHORT}
        return [self._row(cell, shorts.get(cell.keep)) for cell in self.cells]

    def _row(self, cell: Cell, short: Cell | None) -> dict[str, Any]:
        row: dict[str, Any] = {
            "model": self.shape.name, "dtype": str(self.model.dtype).removeprefix("torch."), "batch": self.shape.batch,
            "visual_tokens": self.shape.visual_tokens,
            "text_tokens": self.inputs["input_ids"].shape[1] - self.shape.visual_tokens,
            "keep": cell.keep, "method": cell.method, "repeats": len(cell.rounds),
            "error": cell.error or ("" if cell.rounds else "not measured: the time was over"),
        }  # fmt: skip
        for name in MEASURES:
            row |= spread(name, list(cell.values(name).values()))
        for other, beside in (("full", self.full), ("short", short)):
            for name in RATIOS if beside is not None else ():
                assert beside is not None
                row |= spread(f"{name}_to_{other}", ratios(cell.values(f"{name}_ms"), beside.values(f"{name}_ms")))
        if cell.run is not None and cell.run.per_layer:
            row |= self._counts(cell.run.per_layer, cell.run.method)
        return row

    def _counts(self, per_layer: list[list[int]], method: Method | None) -> dict[str, float]:
        """Tokens of a prompt, and FLOPs of the batch."""
        shape, text = self.shape, self.inputs["input_ids"].shape[1] - self.shape.visual_tokens
        images = flops.images_of(shape.config, self.inputs)[0]
        sizes = Sizes.of(
            shape.config, visual_tokens=shape.visual_tokens, text_tokens=text,
            vision_tokens=flops.vision_tokens(shape.config, images),
        )  # fmt: skip
        choosing = 0 if method is None else method.choosing_flops(sizes)
        counted = [flops.count(shape.config, layers, text, images, choosing=choosing) for layers in per_layer]
        return {
            "mean_visual_tokens": float(np.mean([mean_visual_tokens(layers) for layers in per_layer])),
            "last_visual_tokens": float(np.mean([layers[-1] for layers in per_layer])),
            "prefill_tflops": sum(one.total for one in counted) / 1e12,
            "choosing_tflops": choosing * len(per_layer) / 1e12,
        }

    def close(self) -> None:
        """Let go of the model."""
        self.cells.clear()
        del self.model, self.images, self.inputs, self.full


def ratios(ours: dict[int, float], theirs: dict[int, float]) -> list[float]:
    """Of the same round, where both have it; against the other's median where it has not."""
    if not theirs:
        return []
    median = float(np.median(list(theirs.values())))
    return [value / theirs.get(turn, median) for turn, value in ours.items()]


def spread(name: str, values: list[float]) -> dict[str, float]:
    """Median and quartiles, under the name and with _low and _high behind it."""
    if not values:
        return {}
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {name: float(median), f"{name}_low": float(low), f"{name}_high": float(high)}
