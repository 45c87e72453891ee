"""Where `experiments.evaluate` writes its predictions, and how they are read back in the order of params.yaml."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from experiments.parameters.sections import Evaluate

PREDICTIONS = Path("results/predictions")
# FLOPs of a prefill and what they are the sum of, and of one decoded token.
TERMS = ("vision", "projector", "decoder", "choosing", "total", "per_decoded_token")


def budgets_of(name: str, budgets: Iterable[float]) -> list[float]:
    """The budgets a method is run at: the unpruned model always and only at 1.0, which no other method repeats."""
    return [1.0] if name == "full" else [budget for budget in budgets if budget != 1.0]


@dataclass(frozen=True)
class Cell:
    """One method at one budget.

    Attributes:
        role, budget_parameter: of the method; see pruning.choosing.base.Method.
        floor: the least mean visual tokens that it can reach, where the budget is not feasible.
        answers: empty where it is not.
    """

    method: str
    role: str
    budget_parameter: str | None
    budget: float
    feasible: bool
    floor: float | None
    answers: pd.DataFrame


def read(settings: Evaluate, columns: list[str], folder: Path = PREDICTIONS) -> Iterator[Cell]:
    """The cells of every method, whatever else lies in the folder.

    Raises:
        FileNotFoundError: a method has not been evaluated.
        ValueError: its files hold other budgets than the parameters ask for.
    """
    for name in settings.methods:
        table, description = folder / f"{name}.parquet", folder / f"{name}.json"
        if not table.exists() or not description.exists():
            raise FileNotFoundError(f"{name} has not been evaluated: run `dvc repro evaluate`")
        answers = pq.read_table(table, columns=[*columns, "budget"]).to_pandas()
        cells = {cell["budget"]: cell for cell in json.loads(description.read_text(encoding="utf-8"))}
        wanted = budgets_of(name, settings.budgets)
        if list(cells) != wanted:
            raise ValueError(f"{description} holds budgets {list(cells)}, not {wanted}: run `dvc repro evaluate`")
        for budget in wanted:
            cell = cells[budget]
            chosen = answers[answers["budget"] == budget]
            facts = (cell["role"], cell["budget_parameter"])
            yield Cell(name, *facts, budget, cell["feasible"], cell["floor"], chosen.reset_index(drop=True))
