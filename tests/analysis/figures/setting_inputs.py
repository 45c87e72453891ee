"""Small CSV files as experiments.asking.grid writes them, for the tests of the figures."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.figures.ablation_positions import METHODS as PLACED

TYPES = ("all", "attribute", "counting", "existence", "reading", "relation", "small_object")


def write_settings(path: Path, columns: dict[str, tuple[float, ...]], short: str = "") -> None:
    """A table of experiments.asking.grid: the unpruned model, every combination; of `short` the last does not fit."""
    combinations = [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]
    rows = []
    for place, labels in enumerate([dict.fromkeys(columns), *combinations]):
        for kind in TYPES:
            feasible = place == 0 or not short or labels[short] != columns[short][-1]
            accuracy = 0.9 - 0.01 * place if feasible else np.nan
            row = {"model": "scenes-llava", "benchmark": "scenes", **labels, "type": kind, "feasible": feasible}
            row |= {"n": 120, "mean_visual_tokens": 144 - place if feasible else np.nan, "accuracy": accuracy}
            rows.append(row | {"ci_low": accuracy - 0.05, "ci_high": accuracy + 0.05})
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def write_score_kept(path: Path) -> None:
    """Four scores and the unpruned model; on counting, `cls` is right in 70 %."""
    write_settings(path, {"place": (1, 2, 3, 4)})
    table = pd.read_csv(path)
    table["score"] = table["place"].map({1: "last", 2: "equi_last", 3: "random", 4: "cls"}).fillna("full")
    table["keep"] = np.where(table["score"] == "full", np.nan, 16)
    table.loc[(table["score"] == "cls") & (table["type"] == "counting"), ["accuracy", "ci_low", "ci_high"]] = (
        0.7,
        0.6,
        0.8,
    )
    table.to_csv(path, index=False)


def write_positions(folder: Path) -> None:
    """Methods before the language model at two numbers of tokens, kept in their places and re-packed."""
    for method in PLACED:
        path = folder / f"{method}.csv"
        write_settings(path, {"keep": (8, 16), "positions": ("repacked", "original")})
        table = pd.read_csv(path)
        table.insert(0, "method", np.where(table["keep"].isna(), "full", method))
        table.to_csv(path, index=False)
