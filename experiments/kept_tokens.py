"""Which visual tokens each method kept, for a few example questions: `python -m experiments.kept_tokens`.

Reads results/predictions/METHOD.parquet of the methods in params.yaml and writes results/kept_tokens.csv: id, type,
answer, method, budget, prediction, correct, layers, layers_per_token, merged_into. The last two are JSON lists over the
visual tokens: how many of the decoder's `layers` each token entered, and which of the tokens that the method made by
merging took it in, counted from 0 (-1: none). The examples are the first question of each type that the full
model answers correctly (the first of all where it answers none); the budget is the lowest that three quarters of the
methods reach.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.cells import write_text
from experiments.parameters import load_parameters

PREDICTIONS = Path("results/predictions")
OUTPUT = Path("results/kept_tokens.csv")
SHOWN = ["id", "type", "answer", "method", "budget", "prediction", "correct"]
MOST = 0.75
COLUMNS = [*SHOWN, "layers", "layers_per_token", "merged_into"]


def layers_per_token(kept: Sequence[dict[str, Any]], num_visual: int, layers: int) -> np.ndarray:
    """How many decoder layers each visual token enters, int64 `[num_visual]`.

    Tokens made by merging inside the language model have numbers from `num_visual` on, and no place in the image.

    Args:
        kept: for each layer where the visual tokens change, ascending, its number and their `indices` from there on.
        num_visual: visual tokens of the prompt.
        layers: decoder layers.
    """
    entered = np.zeros(num_visual, dtype=np.int64)
    present, since = np.arange(num_visual), 0
    for change in kept:
        entered[present] += change["layer"] - since
        entering, since = np.asarray(change["indices"], dtype=np.int64), change["layer"]
        present = entering[entering < num_visual]
    entered[present] += layers - since
    return entered


def merged_into(merged: Sequence[dict[str, Any]], num_visual: int) -> np.ndarray:
    """Which merged token each visual token went into, int64 `[num_visual]`, -1 for none.

    Where several took it in (PruMerge): its own if it was kept, else the first; the one made of all that was dropped
    comes last. What was merged again inside the language model counts for the later merge.

    Args:
        merged: for each token that was made, its number as `token` and the numbers it is made `of`.
        num_visual: visual tokens of the prompt.
    """
    number = {row["token"]: place for place, row in enumerate(merged)}
    parts = {row["token"]: np.asarray(row["of"], dtype=np.int64) for row in merged}
    took = np.full(num_visual, -1)
    later = {int(part): token for token, of in parts.items() for part in of if part >= num_visual}
    for token, of in parts.items():
        final = token
        while final in later:
            final = later[final]
        originals = of[of < num_visual]
        free = originals[took[originals] < 0]
        took[free] = number[final]
    kept = [token for token in parts if token < num_visual]
    took[kept] = [number[token] for token in kept]
    return took


def shared_budget(predictions: pd.DataFrame) -> float:
    """The lowest budget that at least MOST of the methods, the full model aside, could be run at."""
    pruned = predictions[predictions["method"] != "full"]
    methods = pruned.groupby("budget")["method"].nunique()
    return float(methods[methods >= MOST * methods.max()].index.min())


def examples(predictions: pd.DataFrame) -> list[str]:
    """Id of one question of each type: the first that the full model answers correctly, or else the first."""
    full = predictions[predictions["method"] == "full"].sort_values("correct", ascending=False, kind="stable")
    return full.groupby("type", sort=True)["id"].first().tolist()


def table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Rows of results/kept_tokens.csv, from the rows of all methods' predictions; see the module's text.

    Raises:
        ValueError: the full model, or every other method, is missing.
    """
    if predictions["method"].eq("full").all() or not predictions["method"].eq("full").any():
        raise ValueError("kept tokens need the predictions of `full` and of at least one other method in params.yaml")
    at_budget = predictions["budget"].eq(shared_budget(predictions)) | predictions["method"].eq("full")
    chosen = predictions[at_budget & predictions["id"].isin(examples(predictions))].copy()
    # The full model's first layer gets every visual token, and so says how many there are.
    totals = chosen[chosen["method"] == "full"].set_index("id")["visual_tokens_per_layer"].map(lambda counts: counts[0])
    chosen["layers"] = chosen["visual_tokens_per_layer"].map(len)
    chosen["layers_per_token"] = [
        json.dumps(layers_per_token(kept, totals[name], layers).tolist(), separators=(",", ":"))
        for kept, name, layers in zip(chosen["kept"], chosen["id"], chosen["layers"], strict=True)
    ]
    chosen["merged_into"] = [
        json.dumps(merged_into(merged, totals[name]).tolist(), separators=(",", ":"))
        for merged, name in zip(chosen["merged"], chosen["id"], strict=True)
    ]
    return chosen.sort_values(["type", "id", "method"])[COLUMNS]


def main() -> None:
    """The stage, for the methods of params.yaml."""
    files = [PREDICTIONS / f"{method}.parquet" for method in load_parameters(try_methods=False).evaluate.methods]
    missing = [str(file) for file in files if not file.exists()]
    if missing:
        raise SystemExit(f"error: {', '.join(missing)} missing; `dvc repro evaluate` makes them")
    needed = [*SHOWN, "visual_tokens_per_layer", "kept", "merged"]
    predictions = pd.concat([pd.read_parquet(file, columns=needed) for file in files], ignore_index=True)
    write_text(OUTPUT, table(predictions).to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    main()
