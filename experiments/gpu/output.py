"""How long there is, and tables that are on the disk after every part."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd


class Deadline:
    """A number of seconds from now on."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    @property
    def over(self) -> bool:
        return self.left <= 0

    def share(self, part: float) -> "Deadline":
        """A part of what is left."""
        return Deadline(max(0.0, self.left * part))


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """A CSV of these columns, whole or not at all.

    pandas alone: what the stages write with needs pyarrow, which a machine with a GPU may lack.
    """
    write_text(path, pd.DataFrame(rows, columns=list(columns)).to_csv(index=False, float_format="%.6g"))


def write_text(path: Path, text: str) -> None:
    """A file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def message(error: BaseException) -> str:
    """An error in one line of a table."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:300]
