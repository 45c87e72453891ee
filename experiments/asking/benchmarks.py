"""What is asked: benchmarks as tables of questions about images."""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet

from experiments.named.benchmarks import FREE_FORM, path

if TYPE_CHECKING:
    from datasets import Dataset


def load(name: str, questions: int = 0, seed: int = 0, types: Collection[str] = ()) -> "Dataset":
    """Questions of a benchmark, in the order of the file.

    Args:
        name: a key of `BENCHMARKS`.
        questions: size of a subset balanced over the question types; 0 takes every question.
        seed: which questions the subset holds.
        types: question types to take; none named: those that have one right answer.
    Raises:
        ValueError: unknown benchmark, or a subset larger than the benchmark.
        FileNotFoundError: the benchmark's file is missing.
    """
    from datasets import Dataset  # takes a second to import, which stages that only name a benchmark need not wait for
    from datasets.table import InMemoryTable

    # A table read from memory: `datasets` would otherwise copy the file into a cache in the user's home.
    dataset = Dataset(InMemoryTable(pyarrow.parquet.read_table(path(name))))
    kinds = np.asarray(dataset["type"])
    chosen = np.flatnonzero(np.isin(kinds, list(types)) if types else ~np.isin(kinds, FREE_FORM))
    if questions:
        chosen = chosen[balanced(kinds[chosen], questions, seed)]
    return dataset.select(chosen)


def balanced(types: np.ndarray, questions: int, seed: int) -> np.ndarray:
    """Ascending indices [questions] of a random subset in which the counts of any two types differ by one at most.

    A type too small for its share is taken whole, and the others make up for it. Raises ValueError if there are fewer
    questions than asked for.
    """
    if not 0 < questions <= len(types):
        raise ValueError(f"{questions} questions asked for, but the benchmark has {len(types)}")
    rng = np.random.default_rng(seed)
    # Number the questions of each type in a random order; taking the lowest numbers deals them round-robin.
    order = rng.permutation(len(types))
    turn = np.empty(len(types), dtype=int)
    for name in np.unique(types):
        members = order[types[order] == name]
        turn[members] = np.arange(len(members))
    dealt = np.lexsort((types, turn))
    return np.sort(dealt[:questions])
