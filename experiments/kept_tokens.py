"""Which visual tokens each method kept, for a few example questions: `python -m experiments.kept_tokens`.

Reads results/predictions/METHOD.parquet of the methods in params.yaml and writes results/kept_tokens.csv: id, type,
answer, method, budget, prediction, correct, layers, layers_per_token, merged_into. The last two are JSON lists over the
visual tokens: how many of the decoder's `layers` each token entered, and which of the tokens that the method made by
merging took it in, counted from 0 (-1: none). The examples are the first question of each type that the full
model answers correctly (the first of all where it answers none); the budget is the lowest that three quarters of the
methods reach.
"""

import json
from pathlib import Path

import pandas as pd

from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import predictions
from experiments.recorded.cells import write_text
from experiments.recorded.kept import layers_per_token, merged_into

OUTPUT = Path("results/kept_tokens.csv")
SHOWN = ["id", "type", "answer", "method", "budget", "prediction", "correct"]
MOST = 0.75
COLUMNS = [*SHOWN, "layers", "layers_per_token", "merged_into"]


def shared_budget(answers: pd.DataFrame) -> float:
    """The lowest budget that at least MOST of the methods, the full model aside, could be run at."""
    pruned = answers[answers["method"] != "full"]
    methods = pruned.groupby("budget")["method"].nunique()
    return float(methods[methods >= MOST * methods.max()].index.min())


def examples(answers: pd.DataFrame) -> list[str]:
    """Id of one question of each type: the first that the full model answers correctly, or else the first."""
    full = answers[answers["method"] == "full"].sort_values("correct", ascending=False, kind="stable")
    return full.groupby("type", sort=True)["id"].first().tolist()


def table(answers: pd.DataFrame) -> pd.DataFrame:
    """Rows of results/kept_tokens.csv, from the rows of all methods' predictions; see the module's text.

    Raises:
        ValueError: the full model, or every other method, is missing.
    """
    if answers["method"].eq("full").all() or not answers["method"].eq("full").any():
        raise ValueError("kept tokens need the predictions of `full` and of at least one other method in params.yaml")
    at_budget = answers["budget"].eq(shared_budget(answers)) | answers["method"].eq("full")
    chosen = answers[at_budget & answers["id"].isin(examples(answers))].copy()
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


def write(parameters: Parameters) -> None:
    """The table, for the methods of params.yaml."""
    needed = ["method", *(name for name in SHOWN if name not in ("method", "budget"))]
    needed += ["visual_tokens_per_layer", "kept", "merged"]
    cells = predictions.read(parameters.evaluate, needed)
    rows = pd.concat([cell.answers for cell in cells if cell.feasible], ignore_index=True)
    write_text(OUTPUT, table(rows).to_csv(index=False, lineterminator="\n"))


main = stage.command(__doc__, write, try_methods=False)

if __name__ == "__main__":
    main()
