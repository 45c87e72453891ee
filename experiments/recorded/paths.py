"""Files that one stage writes and others read."""

from pathlib import Path

STATISTICS = Path("results/attention/statistics.npz")
PREDICTIONS = Path("results/predictions")
ACCURACY = Path("results/accuracy.csv")
FLOPS = Path("results/flops.csv")
LATENCY = Path("results/latency.csv")
TEXTS = Path("results/free_form.parquet")


def needed(path: Path, stage: str) -> Path:
    """The path of a file that a stage writes.

    Raises:
        FileNotFoundError: it has not.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; `dvc repro {stage}` writes it")
    return path
