"""Accuracy of methods over a grid of their parameters: `python -m experiments.ablation`, or of some: `... fastv vtw`.

Writes results/ablation/METHOD.csv for each: the unpruned model (without parameters), then every combination of the grid
in params.yaml, by question type; see experiments.asking.grid.measure. A combination that does not fit the model
(Sequential Prune needs as many layers as k and its steps) is a row with the reason in place of an accuracy.
"""

import itertools
from pathlib import Path
from typing import Any

from experiments import stage
from experiments.asking import grid
from experiments.asking.grid import Variant
from experiments.parameters.load import Parameters
from experiments.recorded.cells import write_text
from pruning import registry

RESULTS = Path("results/ablation")


def variants_of(name: str, values: dict[str, list[Any]]) -> list[Variant]:
    """The unpruned model, then every combination, the last parameter of the grid changing first."""
    combinations = [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
    unpruned = Variant({"method": "full"} | dict.fromkeys(values), registry.get("full"), {})
    return [unpruned, *(Variant({"method": name} | one, registry.get(name), one) for one in combinations)]


def write(parameters: Parameters, names: list[str]) -> None:
    """The tables of these methods; none named: of all that have a grid."""
    grids = parameters.ablation.grids
    for name in names or grids:
        write_grid(parameters, name, stage.chosen("method", name, "ablation.grids", grids))


def write_grid(parameters: Parameters, name: str, values: dict[str, list[Any]]) -> None:
    """The table of one method."""
    table = grid.measure(f"ablation/{name}", variants_of(name, values), parameters.ablation, parameters)
    whole = [key for key, given in values.items() if all(isinstance(value, int) for value in given)]
    write_text(RESULTS / f"{name}.csv", table.astype(dict.fromkeys(whole, "Int64")).to_csv(index=False))


main = stage.command(
    __doc__, write, argument=("method", "keys of params.yaml's ablation.grids; none: all"), any_number=True
)

if __name__ == "__main__":
    main()
