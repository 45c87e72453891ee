"""Where a model reads the image: `python -m experiments.reading_depth`.

Accuracy when every visual token leaves in front of decoder layer k, for every k from 0, at which the language model
never sees one. Where a curve is at its full height the model has read what it needs: what is pruned behind that layer
cannot hurt, however it is chosen. Writes results/reading_depth.csv, by question type; `layer` is k, and the number of
layers for the unpruned model; see experiments.settings.measure.
"""

import argparse
from pathlib import Path

from transformers import AutoConfig

from analysis.probes import Withdraw
from experiments import presets, settings
from experiments.cells import write_text
from experiments.parameters import load_parameters
from experiments.settings import Setting
from pruning.methods.full import Full

RESULT = Path("results/reading_depth.csv")


def settings_of(layers: int) -> list[Setting]:
    """Nothing visual from each layer on, then the unpruned model."""
    gone = [Setting({"method": Withdraw.name, "layer": k}, Withdraw, {"layer": k}) for k in range(layers)]
    return [*gone, Setting({"method": Full.name, "layer": layers}, Full, {})]


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        parameters = load_parameters()
        config = AutoConfig.from_pretrained(presets.find(parameters.model).source)
        layers = config.get_text_config().num_hidden_layers
        table = settings.measure("reading_depth", settings_of(layers), parameters.reading_depth, parameters)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    write_text(RESULT, table.to_csv(index=False))


if __name__ == "__main__":
    main()
