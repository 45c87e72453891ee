"""Accuracy when only a quarter of the token positions survives from a layer on: `python -m experiments.quartile_kept`.

The causal side of the attention shift (VisPruner, arXiv 2412.01818, shift (c)): attention that favours some positions
matters only as far as answers depend on it. Writes results/quartile_kept.csv: the unpruned model (without layer and
quartile), then every decoder layer and quartile, by question type; see experiments.asking.grid.measure.
"""

from pathlib import Path

from experiments import stage
from experiments.asking import grid
from experiments.asking.grid import Variant
from experiments.parameters.load import Parameters
from experiments.probing.probes import KeepQuartile
from experiments.recorded.cells import write_text
from pruning.methods.full import Full

RESULT = Path("results/quartile_kept.csv")


def variants_of(layers: list[int]) -> list[Variant]:
    """The unpruned model, then every quartile in front of every layer."""
    kept = [{"layer": layer, "quartile": quartile} for layer in layers for quartile in range(1, 5)]
    unpruned = Variant({"method": "full", "layer": None, "quartile": None}, Full, {})
    return [unpruned, *(Variant({"method": KeepQuartile.name, **one}, KeepQuartile, one) for one in kept)]


def write(parameters: Parameters) -> None:
    """The table."""
    asked = parameters.quartile_kept
    table = grid.measure("quartile_kept", variants_of(asked.layers), asked, parameters)
    write_text(RESULT, table.astype({"layer": "Int64", "quartile": "Int64"}).to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
