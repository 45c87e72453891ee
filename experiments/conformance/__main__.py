"""Run every golden case that has a runner and print how it compares with the authors' code.

    python -m experiments.conformance tests/golden

DIR is a folder of the golden format (tests/golden/README.md) with vision/, llm/ or glimpse/ in it, or one of these
three itself. Exit status: 0 no case differs, 1 some case differs, 2 the folder is missing or malformed.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from experiments.conformance import glimpse, llm, vision
from experiments.conformance.outcome import MalformedGolden, Outcome

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
    outcomes = list(tqdm(cases, desc="conformance", unit="case", leave=False))
    if not outcomes:
        raise MalformedGolden(f"{folder} holds no case")
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a case: name, method, verdict and the first difference."""
    rows = [(outcome.case, outcome.method, outcome.verdict, outcome.difference) for outcome in outcomes]
    frame = pd.DataFrame(rows, columns=["case", "method", "verdict", "first difference"])
    left = {column: f"{{:<{max(frame[column].str.len().max(), len(column))}}}".format for column in frame}
    lines = frame.to_string(index=False, justify="left", formatters=left, max_colwidth=None).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.conformance", description=__doc__.split("\n")[0])
    parser.add_argument("folder", metavar="DIR", type=Path, help="golden data, e.g. tests/golden")
    options = parser.parse_args(arguments)
    try:
        outcomes = run(options.folder)
    except MalformedGolden as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    print(table(outcomes))
    counts = pd.Series([outcome.verdict for outcome in outcomes]).value_counts()
    print("\n" + ", ".join(f"{counts.get(verdict, 0)} {verdict}" for verdict in ("agree", "differ", "unsupported")))
    return 1 if counts.get("differ", 0) else 0


if __name__ == "__main__":
    disable_progress_bar()  # one bar for the cases, none for every tiny model they load
    sys.exit(main())
