"""GlimpsePrune trained at several depths: `python -m experiments.glimpse_depth`.

Modules for one model that differ in K, the decoder layer behind which tokens leave, at the caps in the section
`glimpse_depth` of params.yaml. Writes results/glimpse_depth.csv: `reduce_layer` (K), `cap` (1: none), accuracy with its
interval and the columns of results/glimpse_masks.csv, by question type.
"""

import argparse
from itertools import product
from pathlib import Path

from experiments import benchmarks, glimpse_masks
from experiments.cells import write_text
from experiments.parameters import load_parameters
from pruning.glimpse import checkpoint

RESULT = Path("results/glimpse_depth.csv")


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        parameters = load_parameters()
        asked = parameters.glimpse_depth
        benchmark = benchmarks.load(parameters.evaluate.benchmark, asked.questions, asked.seed)
        depths = {path: checkpoint.read_config(path).reduce_layer for path in asked.paths}
        by_depth = sorted(depths, key=depths.__getitem__)
        settings = [glimpse_masks.Setting(path, cap) for path, cap in product(by_depth, asked.caps)]
        questions = glimpse_masks.run(asked.model, settings, benchmark, parameters.evaluate)
        questions = questions.assign(reduce_layer=questions["path"].map(depths))
        table = glimpse_masks.summary(questions, ["reduce_layer", "cap"], parameters.accuracy)
    except (ValueError, TypeError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    write_text(RESULT, table.to_csv(index=False))


if __name__ == "__main__":
    main()
