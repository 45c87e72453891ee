"""Prefill time of every method beside the full model's, in one run: `python -m experiments.latency`.

One batch of the benchmark's questions, methods in turn in an order drawn anew for every repeat. Right before each
prefill of a method the unpruned model prefills the same batch, so that both see the same state of the machine: what
counts is the `ratio` of the two, the median over the repeats with its quartiles. A prefill is one forward pass, vision
tower and choosing included, preprocessing not; the model's own, without any hooks, stands for the full model, so that
the row `full` shows what the hooks cost. Writes results/latency.csv, with device, dtype, threads and versions.
"""

import time
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from experiments import stage
from experiments.asking import answers, benchmarks, clip, models
from experiments.asking.answers import Batch
from experiments.asking.surroundings import surroundings, wait
from experiments.parameters.load import Parameters
from experiments.recorded import paths
from experiments.recorded.cells import write_text
from experiments.recorded.predictions import budgets_of
from pruning.choosing.base import Method
from pruning.choosing.budget import InfeasibleBudget
from pruning.registry import solve

RESULT = paths.LATENCY


def table(parameters: Parameters) -> pd.DataFrame:
    """latency.csv: a row for each method and budget it reaches, in the order of params.yaml; seconds are medians."""
    settings = parameters.latency
    benchmark = benchmarks.load(parameters.evaluate.benchmark, settings.batch_size, settings.seed)
    model, processor = models.load(parameters.model)
    batch = next(answers.make_batches(processor, model.config, benchmark, settings.batch_size))
    inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
    methods = methods_of(parameters, model, batch)
    order = np.random.default_rng(settings.seed)
    times: dict[tuple[str, float], list[tuple[float, float]]] = {cell: [] for cell in methods}
    for repeat in tqdm(range(-settings.warm_ups, settings.repeats), "latency", unit="repeat"):
        for cell in [list(methods)[place] for place in order.permutation(len(methods))]:
            pair = prefill_seconds(model, None, inputs), prefill_seconds(model, methods[cell], inputs)
            if repeat >= 0:
                times[cell].append(pair)
    rows = []
    for (name, budget), pairs in times.items():
        full, pruned = np.array(pairs).T
        low, ratio, high = np.quantile(pruned / full, [0.25, 0.5, 0.75])
        row = {"method": name, "budget": budget, "ratio": ratio, "ratio_low": low, "ratio_high": high}
        row |= {"seconds": np.median(pruned), "full_seconds": np.median(full), "repeats": len(pairs)}
        rows.append(row | {"batch_size": len(batch.rows), "visual_tokens": batch.visual_tokens})
    head = {"model": parameters.model, "benchmark": parameters.evaluate.benchmark}
    return pd.DataFrame([head | row | surroundings(model) for row in rows])


def methods_of(parameters: Parameters, model: Any, batch: Batch) -> dict[tuple[str, float], Method]:
    """The methods at the budgets they reach, made for this batch."""
    layers, methods = model.config.get_text_config().num_hidden_layers, {}
    for name, fixed in parameters.evaluate.methods.items():
        own = clip.loaded(fixed, model.device)
        for budget in budgets_of(name, parameters.latency.budgets):
            wanted = budget * batch.visual_tokens
            try:
                method = solve(name, wanted, num_visual=batch.visual_tokens, num_layers=layers, **own)
            except InfeasibleBudget:
                continue
            methods[name, budget] = method.for_questions(batch.questions)
    return methods


@torch.inference_mode()
def prefill_seconds(model: Any, method: Method | None, inputs: dict[str, torch.Tensor]) -> float:
    """Seconds of one forward pass over the prompt, under the method or (None) without any."""
    with nullcontext() if method is None else method(model):
        wait(model.device)
        begun = time.perf_counter()
        model(**inputs, use_cache=method is None or method.uses_cache, logits_to_keep=1)
        wait(model.device)
        return time.perf_counter() - begun


def write(parameters: Parameters) -> None:
    """The table."""
    write_text(RESULT, table(parameters).to_csv(index=False, float_format="%.5g"))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
