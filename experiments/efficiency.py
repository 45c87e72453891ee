"""Prefill, decoding and memory of a few methods beside the full model's: `python -m experiments.efficiency`.

The measures of GlimpsePrune's efficiency figure (arXiv 2508.01548) on one batch of the benchmark's questions, generated
greedily and equally far by every method. Methods come in turn, in an order drawn anew for every repeat, and right
before each one the unpruned model generates from the same batch, without any hooks; what counts are the ratios of the
two, medians over the repeats with their quartiles. Vision tower and choosing are part of the prefill. Writes
results/efficiency.csv, with device, dtype, threads and versions:

- `prefill_ms`: from the call to the first new token; `decode_ms`: for each token after it;
- `peak_memory_mb`: the most that was allocated on the GPU, weights included; empty on a CPU;
- `kv_cache_mb`: keys and values of all layers at the end.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import pruning
from experiments import stage
from experiments.asking import answers, benchmarks, clip, models
from experiments.asking.clock import MB, Clock, cache_mb
from experiments.asking.surroundings import surroundings
from experiments.parameters.load import Parameters
from experiments.recorded.cells import write_text
from pruning.choosing.base import Method

RESULT = Path("results/efficiency.csv")
MEASURES = ("prefill_ms", "decode_ms", "peak_memory_mb", "kv_cache_mb")


def table(parameters: Parameters) -> pd.DataFrame:
    """efficiency.csv: a row for each method, in the order of params.yaml."""
    settings = parameters.efficiency
    model, processor = models.load(settings.model)
    benchmark = benchmarks.load(parameters.evaluate.benchmark, settings.batch_size, settings.seed)
    batch = next(answers.make_batches(processor, model.config, benchmark, settings.batch_size))
    inputs = {name: tensor.to(model.device) for name, tensor in batch.inputs.items()}
    methods = {
        name: pruning.make(name, **clip.loaded(given, model.device)).for_questions(batch.questions)
        for name, given in settings.methods.items()
    }
    if uncached := [name for name, method in methods.items() if not method.uses_cache]:
        raise ValueError(f"{', '.join(uncached)}: mode 'repeat' has no KV cache to measure; leave it out of efficiency")
    layers = {name: visual_tokens(model, method, inputs) for name, method in methods.items()}
    pairs: dict[str, list[tuple[dict[str, float], ...]]] = {name: [] for name in methods}
    order = np.random.default_rng(settings.seed)
    for repeat in tqdm(range(-settings.warm_ups, settings.repeats), "efficiency", unit="repeat"):
        for name in [list(methods)[place] for place in order.permutation(len(methods))]:
            pair = tuple(measure(model, method, inputs, settings.new_tokens) for method in (None, methods[name]))
            if repeat >= 0:
                pairs[name].append(pair)
    head = {"model": settings.model, "benchmark": parameters.evaluate.benchmark}
    sizes = {"batch_size": len(batch.rows), "visual_tokens": batch.visual_tokens, "new_tokens": settings.new_tokens}
    rows = []
    for name, given in settings.methods.items():
        row = {"method": name, "parameters": json.dumps(given), "repeats": settings.repeats, **sizes}
        row |= {"mean_visual_tokens": layers[name].mean(), "last_visual_tokens": layers[name][:, -1].mean()}
        rows.append(head | row | medians(pairs[name]) | surroundings(model))
    return pd.DataFrame(rows)


@torch.inference_mode()
def visual_tokens(model: Any, method: Method, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """Visual tokens of each sample that enter each layer, `[samples, layers]`."""
    with method(model) as record:
        model(**inputs, use_cache=True, logits_to_keep=1)
    return np.array(record.visual_tokens)


@torch.inference_mode()
def measure(model: Any, method: Method | None, inputs: dict[str, torch.Tensor], new_tokens: int) -> dict[str, float]:
    """MEASURES of one generation, under the method or (None) without any; NaN for what the device does not tell."""
    clock, cuda = Clock(), model.device.type == "cuda"
    with nullcontext() if method is None else method(model):
        if cuda:
            torch.cuda.reset_peak_memory_stats(model.device)
        output = model.generate(
            **inputs,
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            streamer=clock,
            return_dict_in_generate=True,
            pad_token_id=model.generation_config.pad_token_id or 0,
        )
        peak = torch.cuda.max_memory_allocated(model.device) / MB if cuda else float("nan")
    begun, first, *_, last = clock.seconds
    per_token = (last - first) / (new_tokens - 1)
    return dict(zip(MEASURES, (1000 * (first - begun), 1000 * per_token, peak, cache_mb(output)), strict=True))


def medians(pairs: list[tuple[dict[str, float], ...]]) -> dict[str, float]:
    """For each measure the pruned and the full model's median, and the median of their ratio with its quartiles."""
    full, pruned = (pd.DataFrame(side) for side in zip(*pairs, strict=True))
    row = {}
    for name in MEASURES:
        low, ratio, high = (pruned[name] / full[name]).quantile([0.25, 0.5, 0.75])
        short = name.rpartition("_")[0]
        row |= {name: pruned[name].median(), f"full_{name}": full[name].median()}
        row |= {f"{short}_ratio": ratio, f"{short}_ratio_low": low, f"{short}_ratio_high": high}
    return row


def write(parameters: Parameters) -> None:
    """The table."""
    write_text(RESULT, table(parameters).to_csv(index=False, float_format="%.5g"))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
