"""Golden cases of GlimpsePrune, the learned method: listed, and reported as unsupported until the method is there."""

from collections.abc import Iterator
from pathlib import Path

from experiments.conformance.outcome import Outcome, read_npz

KINDS = ("vip", "selection", "boxes", "losses")


def recognises(folder: Path) -> bool:
    """Whether the folder looks like the glimpse/ part of the golden data."""
    return bool(_files(folder))


def run(folder: Path) -> Iterator[Outcome]:
    """Every case of the folder.

    Raises:
        MalformedGolden: a file is unreadable.
    """
    for path in _files(folder):
        read_npz(path).part("params")
        yield Outcome(path.relative_to(folder).with_suffix("").as_posix(), "glimpse", "unsupported")


def _files(folder: Path) -> list[Path]:
    flat = [path for kind in KINDS for path in sorted(folder.glob(f"{kind}_*.npz"))]
    return flat + sorted(folder.glob("e2e/case_*.npz"))
