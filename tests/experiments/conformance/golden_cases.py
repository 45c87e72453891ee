"""Golden cases copied into a folder, to be changed or damaged there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[2] / "golden"


def copy_vision(folder: Path, *names: str) -> Path:
    (folder / "vision").mkdir()
    for name in names:
        shutil.copy(GOLDEN / "vision" / f"{name}.npz", folder / "vision")
    return folder


def rewrite(path: Path, change: Callable[[dict], None]) -> None:
    with np.load(path, allow_pickle=False) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez(path, **arrays)


def copy_llm(folder: Path, name: str, change: Callable[[dict], None] = lambda case: None) -> Path:
    """One case of llm/ with all that it needs, `change` applied to it."""
    cases = json.loads((GOLDEN / "llm" / "cases.json").read_text())
    (case,) = (case for case in cases if case["id"] == name)
    for file in [case["inputs"], case["expected"]["last_logits_file"], *model_files(case)]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / "llm" / file, folder / file)
    change(case)
    (folder / "cases.json").write_text(json.dumps([case]))
    return folder


def model_files(case: dict) -> list[Path]:
    return [path.relative_to(GOLDEN / "llm") for path in (GOLDEN / "llm" / case["model"]).iterdir()]
