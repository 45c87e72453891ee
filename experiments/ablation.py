"""Accuracy of a method over a grid of its parameters: `python -m experiments.ablation fastv`.

Writes results/ablation/METHOD.csv: the unpruned model (without parameters), then every combination of the grid in
params.yaml, by question type; see experiments.settings.measure. A combination that does not fit the model (Sequential
Prune needs as many layers as k and its steps) is a row with the reason in place of an accuracy.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

from experiments import settings
from experiments.cells import write_text
from experiments.parameters import load_parameters
from experiments.settings import Setting
from pruning import registry

RESULTS = Path("results/ablation")


def settings_of(name: str, grid: dict[str, list[Any]]) -> list[Setting]:
    """The unpruned model, then every combination, the last parameter of the grid changing first."""
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    unpruned = Setting({"method": "full"} | dict.fromkeys(grid), registry.get("full"), {})
    return [unpruned, *(Setting({"method": name} | one, registry.get(name), one) for one in combinations)]


def main() -> None:
    """Command line: the method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="a key of params.yaml's ablation.grids")
    name = parser.parse_args().method
    try:
        parameters = load_parameters()
        asked = parameters.ablation
        if name not in asked.grids:
            raise ValueError(f"method {name!r} is not in params.yaml's ablation.grids: {', '.join(asked.grids)}")
        grid = asked.grids[name]
        table = settings.measure(f"ablation/{name}", settings_of(name, grid), asked, parameters)
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    whole = [key for key, values in grid.items() if all(isinstance(value, int) for value in values)]
    write_text(RESULTS / f"{name}.csv", table.astype(dict.fromkeys(whole, "Int64")).to_csv(index=False))


if __name__ == "__main__":
    main()
