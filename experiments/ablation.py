"""Accuracy of a method over a grid of its parameters: `python -m experiments.ablation fastv`.

Writes results/ablation/METHOD.csv: the unpruned model (without parameters), then every combination of the grid in
params.yaml, by question type; see experiments.asking.grid.measure. A combination that does not fit the model
(Sequential Prune needs as many layers as k and its steps) is a row with the reason in place of an accuracy.
"""

import itertools
from pathlib import Path
from typing import Any

from experiments import stage
from experiments.asking import grid
from experiments.asking.grid import Setting
from experiments.parameters.load import Parameters
from experiments.recorded.cells import write_text
from pruning import registry

RESULTS = Path("results/ablation")


def settings_of(name: str, values: dict[str, list[Any]]) -> list[Setting]:
    """The unpruned model, then every combination, the last parameter of the grid changing first."""
    combinations = [dict(zip(values, one, strict=True)) for one in itertools.product(*values.values())]
    unpruned = Setting({"method": "full"} | dict.fromkeys(values), registry.get("full"), {})
    return [unpruned, *(Setting({"method": name} | one, registry.get(name), one) for one in combinations)]


def write(parameters: Parameters, name: str) -> None:
    """The table of one method."""
    asked = parameters.ablation
    values = stage.chosen("method", name, "ablation.grids", asked.grids)
    table = grid.measure(f"ablation/{name}", settings_of(name, values), asked, parameters)
    whole = [key for key, given in values.items() if all(isinstance(value, int) for value in given)]
    write_text(RESULTS / f"{name}.csv", table.astype(dict.fromkeys(whole, "Int64")).to_csv(index=False))


main = stage.command(__doc__, write, argument=("method", "a key of params.yaml's ablation.grids"))

if __name__ == "__main__":
    main()
