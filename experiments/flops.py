"""FLOPs of every method and budget, averaged over the questions: `python -m experiments.flops`.

Writes results/flops.csv: vision tower, projector, decoder, what the method spends on choosing, their total (the whole
prefill), one decoded token, and the total as a share of the unpruned model's.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import AutoConfig

import pruning
from analysis import flops
from experiments import predictions, presets
from experiments.cells import write_text
from experiments.parameters import Parameters, load_parameters
from pruning.budget import Sizes, mean_visual_tokens

RESULT = Path("results/flops.csv")
SHAPE = ("parameters", "text_tokens", "images", "visual_tokens")
TERMS = ("vision", "projector", "decoder", "choosing", "total", "per_decoded_token")


def table(parameters: Parameters) -> pd.DataFrame:
    """One row per feasible method and budget; FLOPs are means over the questions, rounded to whole numbers."""
    config = AutoConfig.from_pretrained(presets.find(parameters.model).source)
    rows = []
    for cell in predictions.read(parameters.evaluate, [*SHAPE, "visual_tokens_per_layer"]):
        if not cell.feasible:
            continue
        # Most questions share their shape with others: each shape is counted once.
        shapes: Counter[tuple[Any, ...]] = Counter(
            (*(row[name] for name in SHAPE), tuple(row["visual_tokens_per_layer"].tolist()))
            for row in cell.answers.to_dict("records")
        )
        means = dict.fromkeys((*TERMS, "full", "mean_visual_tokens"), 0.0)
        for (settings, text_tokens, images, visual_tokens, per_layer), count in shapes.items():
            sample = flops_of(config, cell.method, settings, text_tokens, json.loads(images), visual_tokens, per_layer)
            for name, value in sample.items():
                means[name] += value * count / len(cell.answers)
        rows.append(
            {
                "model": parameters.model,
                "benchmark": parameters.evaluate.benchmark,
                "method": cell.method,
                "budget": cell.budget,
                "mean_visual_tokens": round(means["mean_visual_tokens"], 3),
                **{name: round(means[name]) for name in TERMS},
                "ratio_to_full": round(means["total"] / means["full"], 6),
            }
        )
    return pd.DataFrame(rows)


def flops_of(
    config: Any,
    name: str,
    settings: str,
    text_tokens: int,
    images: list[Any],
    visual_tokens: int,
    per_layer: tuple[int, ...],
) -> dict[str, float]:
    """The terms of one question, with `full`: the total of the unpruned model, and the mean visual tokens."""
    method = pruning.make(name, **json.loads(settings))
    sizes = Sizes.of(
        config,
        visual_tokens=visual_tokens,
        text_tokens=text_tokens,
        vision_tokens=flops.vision_tokens(config, images),
    )
    choosing = method.choosing_flops(sizes)
    counted = flops.count(config, per_layer, text_tokens, images, choosing=choosing)
    terms = {term: float(getattr(counted, term)) for term in TERMS}
    if getattr(method, "mode", None) == "repeat":  # no cache: every step is a prefill of one token more
        terms["per_decoded_token"] = flops.count(config, per_layer, text_tokens + 1, images, choosing=choosing).total
    full = flops.count(config, [visual_tokens] * len(per_layer), text_tokens, images)
    return terms | {"full": full.total, "mean_visual_tokens": mean_visual_tokens(per_layer)}


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        write_text(RESULT, table(load_parameters()).to_csv(index=False))
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
