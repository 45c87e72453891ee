"""Accuracy by the score that chooses the tokens, all else equal: `python -m experiments.score_kept`.

The causal side of attention dispersion (VisPruner, arXiv 2412.01818): as many tokens, dropped before the language
model, by the last query's attention in a layer of the unpruned model, by the same with the RoPE decay removed, at
random, and by [CLS] attention. Writes results/score_kept.csv: one row per score and question type, and the unpruned
model; see experiments.asking.grid.measure.
"""

from pathlib import Path

from experiments import stage
from experiments.asking import grid
from experiments.asking.grid import Variant
from experiments.parameters.load import Parameters
from experiments.probing.attention import LAYER
from experiments.probing.probes import KeepByLastQuery
from experiments.recorded.cells import write_text
from pruning.methods.fastervlm import FasterVLM
from pruning.methods.full import Full
from pruning.methods.random import Random

RESULT = Path("results/score_kept.csv")


def variants_of(keep: int) -> list[Variant]:
    """The unpruned model, then every score; `layer` is the decoder layer that a score is read from."""
    return [
        Variant({"score": "full", "layer": None, "keep": None}, Full, {}),
        Variant({"score": "last", "layer": LAYER, "keep": keep}, KeepByLastQuery, {"keep": keep, "layer": LAYER}),
        Variant(
            {"score": "equi_last", "layer": LAYER, "keep": keep},
            KeepByLastQuery,
            {"keep": keep, "layer": LAYER, "rope": False},
        ),
        Variant({"score": "random", "layer": None, "keep": keep}, Random, {"keep": keep, "seed": 0}),
        Variant({"score": "cls", "layer": None, "keep": keep}, FasterVLM, {"keep": keep}),
    ]


def write(parameters: Parameters) -> None:
    """The table."""
    asked = parameters.score_kept
    table = grid.measure("score_kept", variants_of(asked.keep), asked, parameters)
    write_text(RESULT, table.astype({"layer": "Int64", "keep": "Int64"}).to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
