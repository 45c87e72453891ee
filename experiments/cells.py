"""Finished cells of an evaluation, kept under a digest of everything that their outcome depends on."""

import hashlib
import inspect
import json
import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

# Nearly every stage writes with this module, and most need neither torch nor transformers: seconds to import.
if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pruning.base import Method

PRUNING = Path(__file__).resolve().parents[1] / "pruning"


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


def code_digest(method: "Method", *modules: ModuleType) -> str:
    """What stands for the code: `pruning/` with this method's own file (and its bases'), but no other method's.

    Of methods that are made of others (`sequence`) the others' files count too. `modules` are further modules whose
    text counts; so do the versions of torch and transformers.
    """
    files = {file for file in PRUNING.rglob("*.py") if file.parent.name != "methods"}
    for part in (method, *getattr(method, "methods", ())):
        files |= {Path(inspect.getfile(base)) for base in type(part).__mro__ if base.__module__.startswith("pruning.")}
    sources = [inspect.getsource(module) for module in modules]
    return digest([files_digest(files), sources, version("torch"), version("transformers")])


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    pq.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    os.replace(unfinished, path)
