"""Figures from synthetic results: they draw what the CSV files hold, whatever methods are in them, and always the same bytes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

BUDGETS = (0.75, 0.5, 0.333, 0.222, 0.111, 0.056)
TYPES = ("all", "attribute", "counting", "existence", "reading", "relation", "small_object")
METHODS = ("full", "random", "grid", "oracle", "vispruner", "sequential_prune", "fastv")
INSIDE = ("sequential_prune", "fastv", "sparsevlm", "pyramiddrop", "dart", "vtw", "glimpse")


def write_accuracy(folder: Path, methods: tuple[str, ...] = METHODS, tokens: int = 144, layers: int = 8) -> None:
    """A small accuracy.csv as the pipeline writes it; accuracy falls with the budget, faster for some methods."""
    rows = []
    for rank, method in enumerate(methods):
        for budget in (1.0,) if method == "full" else BUDGETS:
            mean = budget * tokens
            feasible = not (method in INSIDE and budget < 0.3)
            if method in INSIDE:
                after = max((mean * layers - 2 * tokens) / (layers - 2), 0)
                counts = [tokens] * 2 + [round(after)] * (layers - 2)
            else:
                counts = [round(mean)] * layers
            for kind in TYPES:
                n = 600 if kind == "all" else 100
                loss = {"full": 0.0, "oracle": 0.02}.get(method, 0.05 + 0.01 * rank)
                accuracy = max(0.95 - loss * np.log2(1 / budget) / 2 - 0.01 * TYPES.index(kind), 0.05)
                half = 1.96 * np.sqrt(max(accuracy * (1 - accuracy), 0.01) / n)
                rows.append(
                    {
                        "model": "scenes-llava",
                        "benchmark": "scenes",
                        "type": kind,
                        "method": method,
                        "parameters": "{}",
                        "budget": budget,
                        "feasible": feasible,
                        "mean_visual_tokens": np.mean(counts) if feasible else np.nan,
                        "visual_tokens_per_layer": json.dumps(counts) if feasible else "",
                        "flops": 2e8 + 4e6 * float(np.mean(counts)) if feasible else np.nan,
                        "n": n,
                        "accuracy": accuracy if feasible else np.nan,
                        "ci_low": accuracy - half if feasible else np.nan,
                        "ci_high": accuracy + half if feasible else np.nan,
                    }
                )
    pd.DataFrame(rows).to_csv(folder / "accuracy.csv", index=False)


def write_kept_tokens(folder: Path, ids: list[str], methods: tuple[str, ...] = METHODS, tokens: int = 144) -> None:
    """A kept_tokens.csv for the given questions; methods inside the model drop tokens after two of eight layers."""
    rng = np.random.default_rng(0)
    rows = []
    for number, name in enumerate(ids):
        for method in methods:
            entered = np.where(rng.random(tokens) < 0.33, 8, 2 if method in INSIDE else 0)
            rows.append(
                {
                    "id": name,
                    "type": TYPES[1 + number % 6],
                    "answer": "red",
                    "method": method,
                    "budget": 1.0 if method == "full" else 0.333,
                    "prediction": "red" if number % 2 else "blue",
                    "correct": bool(number % 2),
                    "layers": 8,
                    "layers_per_token": json.dumps((np.full(tokens, 8) if method == "full" else entered).tolist()),
                }
            )
    pd.DataFrame(rows).to_csv(folder / "kept_tokens.csv", index=False)
