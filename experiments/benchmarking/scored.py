"""Scored answers: one table for each run, beside its answers' folder, made of them again at any time without a GPU."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.benchmarking.stored import KEYS, Run
from experiments.recorded import cells

SCHEMA = pa.schema(
    [
        ("row", pa.int32()),
        ("id", pa.string()),
        ("type", pa.string()),
        ("prediction", pa.string()),  # missing where the setting cannot be had on the image
        ("answer", pa.string()),
        ("score", pa.float64()),  # 0..1; missing without a prediction, or where a judge's reply held none
        ("correct", pa.bool_()),  # the same where it is 0 or 1, else missing
        ("unit", pa.string()),  # questions that are scored together, and drawn together by intervals and tests
        ("stratum", pa.string()),  # what the benchmark takes means over first
        ("said", pa.string()),  # what was read out of the prediction, where the benchmark reads yes or no
        ("truth", pa.string()),
    ]
)


def path(out: Path, run: Run) -> Path:
    """Of the scores of a run; what scored them, and its totals, are beside it (`_told`)."""
    keys = Path(*(f"{key}={run.description[key]}" for key in KEYS))
    return out / "scores" / keys / f"{run.folder.name}.parquet"


def _told(out: Path, run: Run) -> Path:
    # Arrow passes over names that begin like this.
    return path(out, run).with_name(f"_{run.folder.name}.json")


def unscored(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A stored answer as a row without a score, which is a unit of its own in the only stratum."""
    row = {name: answer[name] for name in ("row", "id", "type", "answer")}
    row["prediction"] = None if pd.isna(answer["prediction"]) else answer["prediction"]
    return row | {"score": None, "unit": answer["id"], "stratum": "all", "said": None, "truth": None}


def write(out: Path, run: Run, rows: Iterable[dict[str, Any]], told: dict[str, Any]) -> None:
    """Store the scores of a run.

    Args:
        out: folder of all results.
        run: that was scored.
        rows: with the columns of `SCHEMA` but for `correct`.
        told: what scored them and the totals that it gave, for comparison.
    """
    found = [{**row, "correct": None if row["score"] not in (0.0, 1.0) else bool(row["score"])} for row in rows]
    # The numbers first: the table, which comes last, says that both are there.
    cells.write_text(_told(out, run), json.dumps(told, indent=1, sort_keys=True) + "\n")
    cells.write_table(path(out, run), pa.Table.from_pylist(found, schema=SCHEMA))


def read(out: Path, run: Run) -> pd.DataFrame:
    """The scores of a run, in the benchmark's order.

    Raises:
        FileNotFoundError: it has not been scored.
    """
    if not path(out, run).exists():
        raise FileNotFoundError(f"{path(out, run)} is missing: score the answers first")
    return pq.ParquetFile(path(out, run)).read().to_pandas().sort_values("row", ignore_index=True)


def told(out: Path, run: Run) -> dict[str, Any]:
    """What `write` was told of a run."""
    found: dict[str, Any] = json.loads(_told(out, run).read_text(encoding="utf-8"))
    return found
