"""Where a model reads the image: `python -m experiments.reading_depth`.

Accuracy when every visual token leaves in front of decoder layer k, for every k from 0, at which the language model
never sees one. Where a curve is at its full height the model has read what it needs: what is pruned behind that layer
cannot hurt, however it is chosen. Writes results/reading_depth.csv, by question type; `layer` is k, and the number of
layers for the unpruned model; see experiments.asking.grid.measure.
"""

from pathlib import Path

from transformers import AutoConfig

from experiments import stage
from experiments.asking import grid
from experiments.asking.grid import Variant
from experiments.named import presets
from experiments.parameters.load import Parameters
from experiments.probing.probes import Withdraw
from experiments.recorded.cells import write_text
from pruning.methods.full import Full

RESULT = Path("results/reading_depth.csv")


def variants_of(layers: int) -> list[Variant]:
    """Nothing visual from each layer on, then the unpruned model."""
    gone = [Variant({"method": Withdraw.name, "layer": k}, Withdraw, {"k": k}) for k in range(layers)]
    return [*gone, Variant({"method": Full.name, "layer": layers}, Full, {})]


def write(parameters: Parameters) -> None:
    """The table."""
    config = AutoConfig.from_pretrained(presets.find(parameters.model).source)
    variants = variants_of(config.get_text_config().num_hidden_layers)
    table = grid.measure("reading_depth", variants, parameters.reading_depth, parameters)
    write_text(RESULT, table.to_csv(index=False))


main = stage.command(__doc__, write)

if __name__ == "__main__":
    main()
