"""A folder like the repository's, with a tiny model and a few questions, that the stages run in."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from pruning import registry
from tests.tiny_models import tiny_llava
from tests.tiny_processors import save_tiny

COMMITTED = Path(__file__).parents[2] / "params.yaml"
QUESTIONS = ("what colour is the circle ?", "is the circle red and the circle blue ?", "red ?")
TYPES = ("attribute", "counting", "caption")
METHODS = {"full": {}, "random": {"seed": 0}, "fastv": {"k": 2, "rounding": "round"}}


def make(folder: Path, questions: int = 12, **evaluate: Any) -> Path:
    """Write params.yaml, data/scenes/evaluation.parquet and the model `tiny`; `evaluate` changes its parameters."""
    write_benchmark(folder / "data/scenes/evaluation.parquet", questions)
    save_tiny(tiny_llava()[0], folder / "tiny")
    parameters = yaml.safe_load(COMMITTED.read_text())
    parameters["model"] = parameters["weights"] = "tiny"
    parameters["modules"] = "experiments/named/presets.py"
    parameters["evaluate"] |= {"questions": 0, "batch_size": 4, "max_new_tokens": 3, "budgets": [1.0, 0.5, 0.25]}
    parameters["evaluate"] |= {"methods": METHODS} | evaluate
    parameters["free_form"] |= {"questions": 0, "batch_size": 4, "max_new_tokens": 3, "budgets": [1.0, 0.5, 0.05]}
    parameters["free_form"]["methods"] = list(parameters["evaluate"]["methods"])
    write_parameters(folder, parameters)
    return folder


def write_parameters(folder: Path, parameters: dict[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(parameters, sort_keys=False))


def write_benchmark(path: Path, questions: int, seed: int = 0, caption: str = "yes") -> None:
    """Questions of the three `TYPES` in turn, each about an image of its own; `caption` answers those for one."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(questions):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(buffer, "PNG")
        rows.append(
            {
                "id": f"q{number:03d}",
                "image": {"bytes": buffer.getvalue(), "path": None},
                "question": QUESTIONS[number % 3],
                "answer": caption if TYPES[number % 3] == "caption" else "yes",
                "type": TYPES[number % 3],
                "boxes": [[0.0, 0.0, 0.5, 0.33]],
            }
        )
    text = {name: Value("string") for name in ("id", "question", "answer", "type")}
    features = Features({**text, "image": ImageFeature(), "boxes": List(List(Value("float32")))})
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows, features=features).to_parquet(path)


def write_predictions(folder: Path, method: str, cells: dict[float, pd.DataFrame | float]) -> None:
    """The two files of an evaluated method: its answers at every budget, or the floor where it cannot reach one."""
    answered = [table.assign(method=method, budget=b) for b, table in cells.items() if isinstance(table, pd.DataFrame)]
    known = registry.get(method)
    facts = {"role": known.role, "budget_parameter": known.budget_parameter}
    described = [
        {"method": method, "budget": budget, "feasible": isinstance(cell, pd.DataFrame), **facts}
        | {"floor": None if isinstance(cell, pd.DataFrame) else cell}
        for budget, cell in cells.items()
    ]
    predictions = folder / "results/predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    pd.concat(answered).to_parquet(predictions / f"{method}.parquet")
    (predictions / f"{method}.json").write_text(json.dumps(described))
