"""The groups of questions that results are given for: all, those that take several looks, and each type."""

from collections.abc import Collection, Iterator

import pandas as pd

ALL = "all"
SEVERAL_LOOKS = "several_looks"
# Benchmark -> its types where what to look for next is what the look before found. Others have no such group.
TYPES_OF_SEVERAL_LOOKS = {"scenes": ("link", "locate", "chain", "relay")}


def groups(
    rows: pd.DataFrame, benchmark: str, types: Collection[str] | None = None
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name and the rows of each group: all, then those of several looks if there are such types, then each type.

    Args:
        rows: with a column `type`.
        benchmark: a key of experiments.named.benchmarks.BENCHMARKS.
        types: those that have a group, with rows or without; default: those of the rows.
    """
    kinds = sorted(set(rows["type"] if types is None else types))
    several = [kind for kind in kinds if kind in TYPES_OF_SEVERAL_LOOKS.get(benchmark, ())]
    yield ALL, rows
    if several:
        yield SEVERAL_LOOKS, rows[rows["type"].isin(several)]
    for kind in kinds:
        yield kind, rows[rows["type"] == kind]
