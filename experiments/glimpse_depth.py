"""GlimpsePrune trained at several depths: `python -m experiments.glimpse_depth`.

Modules for one model that differ in K, the decoder layer behind which tokens leave, at the caps in the section
`glimpse_depth` of params.yaml. Writes results/glimpse_depth.csv: `reduce_layer` (K), `cap` (1: none), accuracy with its
interval and the columns of results/glimpse_masks.csv, by group of questions.
"""

from itertools import product
from pathlib import Path

from experiments import stage
from experiments.asking import benchmarks
from experiments.parameters.load import Parameters
from experiments.probing import masks
from experiments.recorded.cells import write_text
from pruning.glimpse import checkpoint

RESULT = Path("results/glimpse_depth.csv")


def write(parameters: Parameters) -> None:
    """The table."""
    asked = parameters.glimpse_depth
    benchmark = benchmarks.load(parameters.evaluate.benchmark, asked.questions, asked.seed)
    depths = {path: checkpoint.read_config(path).reduce_layer for path in asked.paths}
    by_depth = sorted(depths, key=depths.__getitem__)
    rules = [masks.MaskRule(path, cap) for path, cap in product(by_depth, asked.caps)]
    questions = masks.run(asked.model, rules, benchmark, parameters.evaluate)
    questions = questions.assign(reduce_layer=questions["path"].map(depths))
    labels = ["reduce_layer", "cap"]
    table = masks.summary(questions, labels, parameters.evaluate.benchmark, parameters.accuracy)
    write_text(RESULT, table.to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
