"""The benchmarks that params.yaml may name: where their questions lie."""

from pathlib import Path

# Name of a benchmark -> its questions: columns id, image, question, answer, type, boxes.
BENCHMARKS = {"scenes": Path("data/scenes/evaluation.parquet")}
FREE_FORM = ("caption",)


def path(name: str) -> Path:
    """The file of a benchmark. Raises ValueError for an unknown name, FileNotFoundError if the file is missing."""
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    if not BENCHMARKS[name].exists():
        raise FileNotFoundError(f"{BENCHMARKS[name]} is missing; `dvc repro scenes` writes it")
    return BENCHMARKS[name]
