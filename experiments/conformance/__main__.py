"""Run every golden case that has a runner and print how it compares with the authors' code.

    python -m experiments.conformance tests/golden

DIR is a folder of the golden format (tests/golden/README.md) with vision/, llm/ or glimpse/ in it, or one of these
three itself. Exit status: 0 no case differs, 1 some case differs, 2 the folder is missing or malformed.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from experiments.conformance import glimpse, llm, vision
from experiments.conformance.outcome import MalformedGolden, Outcome, Verdict

Part = Callable[[Path], Iterator[Outcome]]


def parts(folder: Path) -> dict[Path, Part]:
    """The folders to run and what runs each.

    Raises:
        MalformedGolden: the folder does not exist, or holds no golden data.
    """
    if not folder.is_dir():
        raise MalformedGolden(f"{folder} is not a folder: give a folder with vision/, llm/ or glimpse/ in it")
    runners: dict[str, Part] = {"vision": vision.run, "llm": llm.run, "glimpse": glimpse.run}
    found = {folder / name: runner for name, runner in runners.items() if (folder / name).is_dir()}
    if found:
        return found
    if (folder / "cases.json").exists():
        return {folder: llm.run}
    if glimpse.recognises(folder):
        return {folder: glimpse.run}
    if any(folder.glob("*.npz")):
        return {folder: vision.run}
    raise MalformedGolden(
        f"{folder} holds no golden data: neither vision/, llm/ or glimpse/ nor cases.json nor .npz files"
    )


def run(folder: Path) -> list[Outcome]:
    """Outcomes of all cases of the folder.

    Raises:
        MalformedGolden: the data are missing or unreadable, or there is not one case.
    """
    cases = (outcome for path, part in parts(folder).items() for outcome in part(path))
    outcomes = list(tqdm(cases, desc="conformance", unit="case", leave=False, disable=None))
    if not outcomes:
        raise MalformedGolden(f"{folder} holds no case")
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a case: name, method, verdict and the first difference."""
    rows = [("case", "method", "verdict", "first difference")]
    rows += [(outcome.case, outcome.method, outcome.verdict, outcome.difference) for outcome in outcomes]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.conformance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="golden data, e.g. tests/golden")
    options = parser.parse_args(arguments)
    try:
        outcomes = run(options.folder)
    except MalformedGolden as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    print(table(outcomes))
    counts = Counter(outcome.verdict for outcome in outcomes)
    print("\n" + ", ".join(f"{counts[verdict]} {verdict}" for verdict in get_args(Verdict)))
    return 1 if counts["differ"] else 0


if __name__ == "__main__":
    disable_progress_bar()  # one bar for the cases, none for every tiny model they load
    sys.exit(main())
