"""Accuracy when only a quarter of the token positions survives from a layer on: `python -m experiments.quartile_kept`.

The causal side of the attention shift (VisPruner, arXiv 2412.01818, shift (c)): attention that favours some positions
matters only as far as answers depend on it. Writes results/quartile_kept.csv: the unpruned model (without layer and
quartile), then every decoder layer and quartile, by question type; see experiments.settings.measure.
"""

import argparse
from pathlib import Path

from analysis.probes import KeepQuartile
from experiments import settings
from experiments.cells import write_text
from experiments.parameters import load_parameters
from experiments.settings import Setting
from pruning.methods.full import Full

RESULT = Path("results/quartile_kept.csv")


def settings_of(layers: list[int]) -> list[Setting]:
    """The unpruned model, then every quartile in front of every layer."""
    kept = [{"layer": layer, "quartile": quartile} for layer in layers for quartile in range(1, 5)]
    unpruned = Setting({"method": "full", "layer": None, "quartile": None}, Full, {})
    return [unpruned, *(Setting({"method": KeepQuartile.name, **one}, KeepQuartile, one) for one in kept)]


def main() -> None:
    """Command line: no arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    try:
        parameters = load_parameters()
        asked = parameters.quartile_kept
        table = settings.measure("quartile_kept", settings_of(asked.layers), asked, parameters)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(1, f"error: {error}\n")
    integers = {"layer": "Int64", "quartile": "Int64"}
    write_text(RESULT, table.astype(integers).to_csv(index=False))


if __name__ == "__main__":
    main()
