"""Attention of the unpruned model to its visual tokens, summed over a benchmark's questions.

    python -m experiments.capture_attention

Reads the sections `model` and `capture_attention` of params.yaml. Prefills every question once and writes the means and
counts of analysis.attention.AttentionSums to results/attention/statistics.npz, a file whose size does not depend on the
number of questions.
"""

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset
from torch import Tensor, nn
from tqdm import tqdm
from transformers import ProcessorMixin

from analysis.attention import AttentionSums
from experiments import stage
from experiments.asking import benchmarks, models
from experiments.asking.inputs import build_inputs
from experiments.parameters.load import Parameters
from experiments.probing.attention import LAYER, prefill_statistics
from experiments.recorded import paths

KEPT_SHARE = 1 / 9


def batches(processor: ProcessorMixin, questions: Dataset, batch_size: int) -> Iterable[Mapping[str, Tensor]]:
    """Model inputs of `batch_size` questions at a time, in the order given."""
    for start in range(0, len(questions), batch_size):
        chosen = questions[start : start + batch_size]
        yield build_inputs(processor, chosen["image"], chosen["question"])


def capture(model: nn.Module, inputs: Iterable[Mapping[str, Tensor]], chunk: int = 64) -> AttentionSums:
    """Statistics of all batches; holds one batch and the sums in memory.

    Raises:
        ValueError: no batch at all, or visual tokens that differ in number between questions.
    """
    sums: AttentionSums | None = None
    for batch in inputs:
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        statistics = prefill_statistics(model, on_device, chunk)
        layers, num_visual = statistics["last"].shape[1:]
        if sums is None:
            sums = AttentionSums(layer=min(LAYER, layers - 1), keep=max(round(KEPT_SHARE * num_visual), 1))
        sums.add(statistics)
    if sums is None:
        raise ValueError("there are no questions to capture attention from; raise capture_attention.questions")
    return sums


def write(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write an npz file completely or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    try:
        unfinished.write_bytes(buffer.getvalue())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_sums(parameters: Parameters) -> None:
    """The sums over the questions of params.yaml."""
    settings = parameters.capture_attention
    questions = benchmarks.load(parameters.evaluate.benchmark, settings.questions, settings.seed)
    model, processor = models.load(parameters.model)
    rounds = -(-len(questions) // settings.batch_size)
    inputs = tqdm(batches(processor, questions, settings.batch_size), "attention", total=rounds, unit="batch")
    write(capture(model, inputs).arrays(), paths.STATISTICS)


main = stage.command(__doc__, write_sums)

if __name__ == "__main__":
    main()
