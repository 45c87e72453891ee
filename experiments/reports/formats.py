"""One table as CSV, Markdown and LaTeX (packages booktabs and longtable)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.recorded.cells import write_text

_LATEX_SPECIAL = str.maketrans({character: f"\\{character}" for character in "%_&#$"})


@dataclass(frozen=True)
class Measured:
    """A number and its interval, in the unit and with the decimals in which the table shows them."""

    value: float
    low: float
    high: float
    best: bool = False

    def plain(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"

    def markdown(self) -> str:
        stars = "**" if self.best else ""
        return f"{stars}{self.value:.1f}{stars} <sub>{self.low:.1f} to {self.high:.1f}</sub>"

    def latex(self) -> str:
        value = f"\\textbf{{{self.value:.1f}}}" if self.best else f"{self.value:.1f}"
        return f"{value} {{\\scriptsize {self.low:.1f}--{self.high:.1f}}}"


def write(stem: Path, table: pd.DataFrame, caption: str, *, numbers: pd.DataFrame | None = None) -> None:
    """Write STEM.csv, STEM.md and STEM.tex.

    Args:
        stem: where, without suffix.
        table: what Markdown and LaTeX show: every cell a string or `Measured`, no index.
        caption: one paragraph of plain text, without markup.
        numbers: what the CSV holds; default: the cells of `table` as plain text.
    """
    data = table.map(_shown(Measured.plain)) if numbers is None else numbers
    write_text(stem.with_suffix(".csv"), data.to_csv(index=False, lineterminator="\n"))
    write_text(stem.with_suffix(".md"), f"{markdown(table)}\n\n{caption}\n")
    write_text(stem.with_suffix(".tex"), latex(table, caption, stem.name))


def markdown(table: pd.DataFrame) -> str:
    """The table alone; its first column to the left, all of them as text."""
    return table.map(_shown(Measured.markdown)).to_markdown(index=False, disable_numparse=True)


def latex(table: pd.DataFrame, caption: str, name: str) -> str:
    """A `table` environment, or a `longtable` where it would not fit a page, with the label `tab:NAME`."""
    styler = table.style.format(_shown(Measured.latex), escape="latex").format_index(escape="latex", axis=1)
    long = len(table) > 45
    return styler.hide(axis="index").to_latex(
        hrules=True,
        column_format="l" * len(table.columns),
        caption=caption.translate(_LATEX_SPECIAL),
        label=f"tab:{name.replace('_', '-')}",
        environment="longtable" if long else "table",
        position_float=None if long else "centering",
    )


def _shown(how: Callable[[Measured], str]) -> Callable[[Any], str]:
    return lambda cell: how(cell) if isinstance(cell, Measured) else str(cell)
