"""Prefill time of every method beside the full model's: `python -m experiments.latency`.

One batch of the benchmark's questions, methods in turn in an order drawn anew for every repeat. Right before each
prefill of a method the unpruned model prefills the same batch, so that both see the same state of the machine: what
counts is the `ratio` of the two, the median over the repeats with its quartiles. A prefill is one forward pass, vision
tower and choosing included, preprocessing not; the model's own, without any hooks, stands for the full model, so that
the row `full` shows what the hooks cost. Writes results/latency.csv, with device, dtype, threads and versions.

Measured times are kept in results/parts/latency/, each under a digest of the model, the code, the parameters, the
questions, the device and the versions: a new method is timed alone. Ratios of methods that were timed apart can be
compared, seconds cannot. To time all of them again, delete that folder.
"""

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from experiments import stage
from experiments.asking import answers, asked, benchmarks, models
from experiments.asking.answers import Batch
from experiments.asking.surroundings import surroundings, wait
from experiments.parameters.load import Parameters
from experiments.parameters.sections import Latency
from experiments.recorded import cells, paths
from experiments.recorded.predictions import budgets_of
from pruning.choosing.base import Method
from pruning.choosing.budget import InfeasibleBudget
from pruning.registry import solve

Key = tuple[str, float]  # method and budget

RESULT = paths.LATENCY
PARTS = Path("results/parts/latency")


def table(parameters: Parameters) -> pd.DataFrame:
    """latency.csv: a row for each method and budget it reaches, in the order of params.yaml; seconds are medians."""
    settings = parameters.latency
    benchmark = benchmarks.load(parameters.evaluate.benchmark, settings.batch_size, settings.seed)
    model, processor = models.load(parameters.model)
    batch = next(answers.make_batches(processor, model.config, benchmark, settings.batch_size))
    methods, files = cells_of(parameters, model, batch)
    missing = {key: method for key, method in methods.items() if not files[key].exists()}
    for key, pairs in timed(model, missing, batch, settings).items():
        cells.write_text(files[key], json.dumps(pairs))
    rows = []
    for (name, budget), file in files.items():
        full, pruned = np.array(json.loads(file.read_text())).T
        low, ratio, high = np.quantile(pruned / full, [0.25, 0.5, 0.75])
        row = {"method": name, "budget": budget, "ratio": ratio, "ratio_low": low, "ratio_high": high}
        row |= {"seconds": np.median(pruned), "full_seconds": np.median(full), "repeats": settings.repeats}
        rows.append(row | {"batch_size": len(batch.rows), "visual_tokens": batch.visual_tokens})
    head = {"model": parameters.model, "benchmark": parameters.evaluate.benchmark}
    return pd.DataFrame([head | row | surroundings(model) for row in rows])


def cells_of(parameters: Parameters, model: Any, batch: Batch) -> tuple[dict[Key, Method], dict[Key, Path]]:
    """The methods at the budgets they reach, made for this batch, and the file of each one's times."""
    layers, settings = model.config.get_text_config().num_hidden_layers, parameters.latency
    shared = asked.shared_by_methods(model, parameters.evaluate.benchmark)
    shared |= {"questions": [question["id"] for question in batch.questions], **surroundings(model)}
    shared |= {"repeats": settings.repeats, "warm_ups": settings.warm_ups}
    methods, files = {}, {}
    for name, fixed in parameters.evaluate.methods.items():
        one = asked.ask(name, fixed, model, shared, Path(__file__))
        for budget in budgets_of(name, settings.budgets):
            wanted = budget * batch.visual_tokens
            try:
                method = solve(name, wanted, num_visual=batch.visual_tokens, num_layers=layers, **one.parameters)
            except InfeasibleBudget:
                continue
            methods[name, budget] = method.for_questions(batch.questions)
            files[name, budget] = PARTS / name / f"{cells.digest(one.depends_on | {'budget': budget})}.json"
    return methods, files


def timed(model: Any, methods: Mapping[Key, Method], batch: Batch, settings: Latency) -> dict[Key, list[list[float]]]:
    """Seconds of the full and of the pruned prefill, for each method and repeat."""
    inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
    order = np.random.default_rng(settings.seed)
    times: dict[Key, list[list[float]]] = {key: [] for key in methods}
    for repeat in tqdm(range(-settings.warm_ups, settings.repeats), "latency", unit="repeat", disable=not methods):
        for key in [list(methods)[place] for place in order.permutation(len(methods))]:
            pair = [prefill_seconds(model, None, inputs), prefill_seconds(model, methods[key], inputs)]
            if repeat >= 0:
                times[key].append(pair)
    return times


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
    cells.write_text(RESULT, table(parameters).to_csv(index=False, float_format="%.5g"))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
