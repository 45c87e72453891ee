"""Draw one figure from the committed CSV files: `python -m experiments.figures accuracy_against_budget`.

Reads results/*.csv (kept_tokens reads the images of data/scenes/evaluation.parquet too) and writes figures/NAME.pdf and
figures/NAME.png, both at once.
"""

import argparse
import importlib
from pathlib import Path

from analysis.figures import names


def draw(name: str, results: Path = Path("results"), folder: Path = Path("figures")) -> list[Path]:
    """Draw figure `name` from the CSV files in `results`; returns the files written in `folder`.

    Raises:
        ValueError: unknown name, or a CSV that cannot be drawn.
        FileNotFoundError: a CSV that the figure needs is not there yet.
    """
    if name not in names():
        raise ValueError(f"unknown figure {name!r}; the figures are: {', '.join(names())}")
    from analysis.figures.shared import style  # matplotlib: only to draw, not to name the figures there are

    module = importlib.import_module(f"analysis.figures.{name}")
    missing = [file for file in module.INPUTS if not (results / file).exists()]
    if missing:
        raise FileNotFoundError(f"{name} needs {', '.join(missing)} in {results}/; run `dvc repro` first")
    with style.applied():
        return style.save(module.draw(results), folder, name)


def main() -> None:
    """Command line: the figures to draw, all of them if none is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(names())} (default: all)")
    for name in parser.parse_args().names or names():
        try:
            paths = draw(name)
        except (ValueError, FileNotFoundError) as error:
            parser.exit(1, f"error: {error}\n")
        print(*paths)


if __name__ == "__main__":
    main()
