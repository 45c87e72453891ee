"""What is said of the answers of a cell: accuracy with its interval, and the visual tokens that were there."""

import json
from typing import Any

import numpy as np
import pandas as pd

from analysis.significance import accuracy_interval
from experiments.parameters.load import Parameters


def measured(answers: pd.DataFrame, parameters: Parameters) -> dict[str, Any]:
    """Accuracy, its interval, and the visual tokens that were really there, as means over the questions."""
    settings = parameters.accuracy
    correct = answers["correct"].to_numpy(dtype=float)
    low, high = accuracy_interval(
        correct, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
    )
    per_layer = np.stack(answers["visual_tokens_per_layer"].to_list()).mean(0)
    return {
        "mean_visual_tokens": round(float(per_layer.mean()), 3),
        "visual_tokens_per_layer": json.dumps([round(float(count), 2) for count in per_layer]).replace(".0", ""),
        "accuracy": round(float(correct.mean()), 6),
        "ci_low": round(low, 6),
        "ci_high": round(high, 6),
    }
