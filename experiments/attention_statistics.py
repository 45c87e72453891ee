"""The small tables behind the attention figures: `python -m experiments.attention_statistics`.

Reads results/attention/statistics.npz and writes, in tidy form, values rounded to `DIGITS` significant digits:

- results/attention_shift.csv: layer, query, token, attention. `query` is a kind of analysis.attention; `attention` is
  post-softmax, mean over heads and questions. The layer of `cls` is empty: it belongs to the vision tower.
- results/attention_quartiles.csv: layer, quartile (1..4, by position), share of the text-to-visual attention (`text`).
- results/attention_selection.csv: score, layer, keep, token, frequency: the share of questions in which the token is
  among the `keep` highest of the score.
- results/attention_dispersion.csv: score, curve, x, y. `cdf`: share of the visual tokens, highest attention first, and
  share of the attention they hold; `density`: attention / largest attention, and density.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.attention import KINDS, SCORES, quartile_shares
from analysis.dispersion import density, resample_cdf
from experiments import stage
from experiments.parameters.load import Parameters
from experiments.recorded import paths
from experiments.recorded.cells import write_text

DIGITS = 5
RESULTS = Path("results")


def shift(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a layer, kind of query and visual token."""
    tables = []
    for query in KINDS:
        layers, tokens = np.indices(arrays[f"mean/{query}"].shape).reshape(2, -1)
        table = pd.DataFrame({"layer": pd.array(layers, "Int64"), "query": query, "token": tokens})
        table["attention"] = arrays[f"mean/{query}"].ravel()
        if query == "cls":
            table["layer"] = pd.NA
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def quartiles(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a layer and quarter of the token positions; the shares of a layer sum to 1."""
    shares = np.stack([quartile_shares(profile) for profile in arrays["mean/text"]])
    layers, quarters = np.indices(shares.shape).reshape(2, -1)
    return pd.DataFrame({"layer": layers, "quartile": quarters + 1, "share": shares.ravel()})


def selection(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a score and visual token."""
    tables = []
    for score in SCORES:
        frequency = arrays[f"selected/{score}"]
        table = pd.DataFrame({"score": score, "token": np.arange(len(frequency)), "frequency": frequency})
        table.insert(1, "layer", pd.NA if score == "cls" else int(arrays["layer"]))
        table.insert(2, "keep", int(arrays["keep"]))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def dispersion(arrays: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row a score, curve and bin."""
    tables = []
    for score in SCORES:
        name = f"dispersion/{score}"
        curves = {
            "cdf": resample_cdf(arrays[f"{name}/cdf"]),
            "density": density(arrays[f"{name}/counts"], float(arrays[f"{name}/largest"])),
        }
        tables += [pd.DataFrame({"score": score, "curve": curve, "x": x, "y": y}) for curve, (x, y) in curves.items()]
    return pd.concat(tables, ignore_index=True)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV file completely or not at all."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n"))


def write_all(parameters: Parameters) -> None:
    """The four tables."""
    with np.load(paths.needed(paths.STATISTICS, "capture_attention"), allow_pickle=False) as arrays:
        tables = {make.__name__: make(arrays) for make in (shift, quartiles, selection, dispersion)}
    for name, table in tables.items():
        write(table, RESULTS / f"attention_{name}.csv")


main = stage.command(__doc__, write_all, try_methods=False)

if __name__ == "__main__":
    main()
