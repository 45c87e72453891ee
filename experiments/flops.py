"""FLOPs of every method and budget, averaged over the questions: `python -m experiments.flops`.

Writes results/flops.csv: vision tower, projector, decoder, what the method spends on choosing, their total (the whole
prefill), one decoded token, and the total as a share of the unpruned model's.
"""

import json
from collections import Counter
from typing import Any

import pandas as pd
from transformers import AutoConfig

from experiments import stage
from experiments.named import presets
from experiments.parameters.load import Parameters
from experiments.recorded import paths, predictions
from experiments.recorded.cells import write_text
from experiments.recorded.flops import TERMS, flops_of

RESULT = paths.FLOPS
SHAPE = ("parameters", "text_tokens", "images", "visual_tokens")


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


def write(parameters: Parameters) -> None:
    """The table."""
    write_text(RESULT, table(parameters).to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
