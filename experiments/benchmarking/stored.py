"""Where answers lie, and how they are read back: one folder for each run of a setting, which nothing overwrites.

    OUT/answers/model=llava-1.5-7b/benchmark=pope/method=vispruner/setting=tokens-64/run=0123456789ab/part-00003.parquet

The run's name is a digest of all that its answers depend on; `_run.json` beside the parts says what that was. pandas
and pyarrow read any of the folders as one table whose columns model, benchmark, ... come from the path.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.recorded import cells

KEYS = ("model", "benchmark", "method", "setting")
# Arrow passes over names that begin like this.
DESCRIPTION = "_run.json"
SCHEMA = pa.schema(
    [
        ("row", pa.int32()),  # in the benchmark
        ("id", pa.string()),
        ("type", pa.string()),
        ("answer", pa.string()),  # what is right, for readers
        ("prediction", pa.string()),  # as generated, blanks at its ends aside; missing where there is a reason
        ("reason", pa.string()),  # why the setting cannot be had on the image; missing where there is a prediction
        ("parameters", pa.string()),  # JSON, what was solved for among them
        ("text_tokens", pa.int32()),
        ("images", pa.string()),  # JSON; see pruning.models.flops.count
        ("visual_tokens", pa.int32()),  # before pruning
        ("visual_tokens_per_layer", pa.list_(pa.int32())),
        ("seconds", pa.float32()),  # of the batch, as a share for each of its questions and settings
        # As experiments/evaluate.py has them; only where the recipe asks for them.
        ("kept", pa.list_(pa.struct([("layer", pa.int32()), ("indices", pa.list_(pa.int32()))]))),
        ("merged", pa.list_(pa.struct([("token", pa.int32()), ("of", pa.list_(pa.int32()))]))),
    ]
)


@dataclass(frozen=True, eq=False)
class Run:
    """One setting of a method on one benchmark by one model.

    Attributes:
        folder: of its parts.
        parts: how many there are when it is complete.
        description: what `_run.json` holds: `KEYS`, `label`, `counted`, `questions` and what the answers depend on.
    """

    folder: Path
    parts: int
    description: dict[str, Any]

    def part(self, number: int) -> Path:
        return self.folder / f"part-{number:05d}.parquet"

    @property
    def missing(self) -> list[int]:
        """Numbers of the parts that are not there."""
        return [number for number in range(self.parts) if not self.part(number).exists()]

    @property
    def finished(self) -> float:
        """When the newest part was written, in seconds; 0 where there is none."""
        return max((path.stat().st_mtime for path in self.folder.glob("part-*.parquet")), default=0.0)

    def read(self, columns: list[str] | None = None) -> pd.DataFrame:
        """All rows in the benchmark's order.

        Raises:
            FileNotFoundError: parts are missing.
        """
        if self.missing:
            raise FileNotFoundError(
                f"{self.folder}: {len(self.missing)} of {self.parts} parts are missing: answer them"
            )
        wanted = None if columns is None else ["row", *columns]
        tables = [pq.ParquetFile(self.part(number)).read(columns=wanted) for number in range(self.parts)]
        return pa.concat_tables(tables).to_pandas().sort_values("row", ignore_index=True)


def make(
    out: Path, keys: dict[str, str], parts: int, questions: int, depends_on: dict[str, Any], **further: Any
) -> Run:
    """A run's folder with its description, there already or not.

    Args:
        out: the folder of all results.
        keys: values of `KEYS`.
        parts, questions: how many.
        depends_on: everything that its answers depend on; JSON can hold it.
        further: what else its description tells.
    """
    name = cells.digest([depends_on, questions, parts])[:12]
    folder = out / "answers" / Path(*(f"{key}={keys[key]}" for key in KEYS)) / f"run={name}"
    description = {**keys, **further, "questions": questions, "parts": parts, "depends_on": depends_on}
    if not (folder / DESCRIPTION).exists():
        cells.write_text(folder / DESCRIPTION, json.dumps(description, indent=1, sort_keys=True) + "\n")
    return Run(folder, parts, description)


def runs(out: Path) -> Iterator[Run]:
    """All runs, complete or not, in the order of their paths."""
    for path in sorted((out / "answers").glob(f"*/*/*/*/*/{DESCRIPTION}")):
        description = json.loads(path.read_text(encoding="utf-8"))
        yield Run(path.parent, description["parts"], description)


def newest(out: Path) -> tuple[list[Run], list[str]]:
    """Of each model, benchmark, method and setting the complete run that was finished last; and notes on all others."""
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs(out):
        found.setdefault(tuple(run.description[key] for key in KEYS), []).append(run)
    chosen, notes = [], []
    for key, same in found.items():
        complete = sorted((run for run in same if not run.missing), key=lambda run: run.finished)
        for run in same:
            if run.missing:
                notes.append(f"{'/'.join(key)}: {run.folder.name} lacks {len(run.missing)} of {run.parts} parts")
        if complete:
            chosen.append(complete[-1])
            notes += [f"{'/'.join(key)}: {run.folder.name} is older and not shown" for run in complete[:-1]]
    return chosen, notes
