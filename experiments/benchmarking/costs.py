"""FLOPs and visual tokens of stored answers, exact and as a paper counts them."""

import json
from collections import Counter
from typing import Any

import pandas as pd

import pruning
from experiments.recorded.flops import flops_of
from pruning.models import flops

SHAPE = ["parameters", "text_tokens", "images", "visual_tokens", "visual_tokens_per_layer"]


def costs(config: Any, method: str, answers: pd.DataFrame, convention: str | None) -> dict[str, float]:
    """Means over the answered questions.

    Args:
        config: of the model.
        method: its name; FLOPs are counted for methods of the registry.
        answers: with the columns `SHAPE`.
        convention: see pruning.models.flops.published.

    Returns:
        visual_tokens before pruning; mean_visual_tokens over the decoder layers' inputs; tflops and tflops_of_full,
        exact, of a whole prefill; tflops_CONVENTION.
    """
    answered = answers.dropna(subset=["parameters"])
    if answered.empty:
        return {}
    shapes: Counter[tuple[Any, ...]] = Counter(
        (*(row[name] for name in SHAPE[:-1]), tuple(row[SHAPE[-1]])) for row in answered[SHAPE].to_dict("records")
    )
    sums: Counter[str] = Counter()
    for (parameters, text_tokens, images, visual_tokens, per_layer), count in shapes.items():
        text_tokens, visual_tokens = int(text_tokens), int(visual_tokens)
        found = {"visual_tokens": visual_tokens, "mean_visual_tokens": sum(per_layer) / len(per_layer)}
        if method in pruning.names():
            terms = flops_of(
                config, method, parameters, text_tokens, json.loads(images), visual_tokens, tuple(map(int, per_layer))
            )
            found |= {"tflops": terms["total"] / 1e12, "tflops_of_full": terms["full"] / 1e12}
        if convention is not None:
            counted = flops.published(config, per_layer, text_tokens, json.loads(images), convention)
            found[f"tflops_{convention}"] = counted.total / 1e12
        sums.update({name: value * count for name, value in found.items()})
    return {name: float(total) / len(answered) for name, total in sums.items()}
