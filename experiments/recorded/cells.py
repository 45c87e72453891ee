"""Finished cells of an evaluation, kept under a digest of everything that their outcome depends on."""

import hashlib
import inspect
import json
import os
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

# Nearly every stage writes with this module, and most need neither torch nor transformers: seconds to import.
if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOT = Path(__file__).resolve().parents[2]
# The rooms that decide what a method answers; dvc.yaml has the same under `evaluate`.
ROOMS = (
    "experiments/named",
    "experiments/recorded",
    "experiments/asking",
    "pruning/models",
    "pruning/engine",
    "pruning/choosing",
    "pruning/glimpse",
)


def digest(content: Any) -> str:
    """SHA-256 (hex) of something that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def files_digest(files: Iterable[Path]) -> str:
    """SHA-256 (hex) of the names and contents of files, whatever their order and folder."""
    total = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as stream:
            total.update(f"{file.name} {hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def model_digest(model: "PreTrainedModel") -> str:
    """What stands for a model's weights: the contents of its folder, or the hub's revision of its files."""
    folder = Path(model.config.name_or_path)
    if folder.is_dir():
        source = files_digest(file for file in folder.iterdir() if file.is_file())
    else:
        source = f"{folder}@{getattr(model.config, '_commit_hash', None)}"
    return digest([source, str(model.dtype), model.device.type, model.config._attn_implementation])


def code_digest(methods: Iterable[type], *files: Path) -> str:
    """What stands for the code: the `ROOMS` and these methods' files, but no other method's.

    `files` are further ones that count; so do the versions of torch and transformers.
    """
    rooms = {file for room in ROOMS for file in (ROOT / room).rglob("*.py")}
    own = {file for method in methods for file in method_files(method)}
    code = files_digest({*rooms, *own, *files})
    return digest([code, version("torch"), version("transformers")])


def method_files(method: type) -> set[Path]:
    """The file of a method's class, and those of the methods that it builds on."""
    found: set[str] = set()
    waiting = [base.__module__ for base in method.__mro__]
    while waiting:
        module = waiting.pop()
        if module not in found and module.startswith(("pruning.methods.", "pruning.glimpse.", "experiments.")):
            found.add(module)
            held = vars(sys.modules[module]).values()
            waiting += [str(getattr(value, "__module__", "")) for value in held]
    return {Path(inspect.getfile(sys.modules[module])) for module in found}


def _unfinished(path: Path) -> Path:
    """A hidden name beside the file's that no other process uses, here or on a machine that shares the disk."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    pq.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    os.replace(unfinished, path)
