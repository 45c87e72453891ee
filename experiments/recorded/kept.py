"""The visual tokens that stayed, as predictions have them: written down and read back here alone.

`kept` lists, for each decoder layer whose visual tokens differ from those of the layer before (before layer 0: all of
them), its number as `layer` and their `indices` from there on, in the original numbering; tokens made by merging go on
behind it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def layers_per_token(kept: Sequence[dict[str, Any]], num_visual: int, layers: int) -> np.ndarray:
    """How many decoder layers each visual token enters, int64 `[num_visual]`.

    Tokens made by merging inside the language model have numbers from `num_visual` on, and no place in the image.

    Args:
        kept: for each layer where the visual tokens change, ascending, its number and their `indices` from there on.
        num_visual: visual tokens of the prompt.
        layers: decoder layers.
    """
    entered = np.zeros(num_visual, dtype=np.int64)
    present, since = np.arange(num_visual), 0
    for change in kept:
        entered[present] += change["layer"] - since
        entering, since = np.asarray(change["indices"], dtype=np.int64), change["layer"]
        present = entering[entering < num_visual]
    entered[present] += layers - since
    return entered


def merged_into(merged: Sequence[dict[str, Any]], num_visual: int) -> np.ndarray:
    """Which merged token each visual token went into, int64 `[num_visual]`, -1 for none.

    Where several took it in (PruMerge): its own if it was kept, else the first; the one made of all that was dropped
    comes last. What was merged again inside the language model counts for the later merge.

    Args:
        merged: for each token that was made, its number as `token` and the numbers it is made `of`.
        num_visual: visual tokens of the prompt.
    """
    number = {row["token"]: place for place, row in enumerate(merged)}
    parts = {row["token"]: np.asarray(row["of"], dtype=np.int64) for row in merged}
    took = np.full(num_visual, -1)
    later = {int(part): token for token, of in parts.items() for part in of if part >= num_visual}
    for token, of in parts.items():
        final = token
        while final in later:
            final = later[final]
        originals = of[of < num_visual]
        free = originals[took[originals] < 0]
        took[free] = number[final]
    kept = [token for token in parts if token < num_visual]
    took[kept] = [number[token] for token in kept]
    return took


def changes_of(kept: "list[Tensor]", visual_tokens: int) -> list[dict[str, Any]]:
    """The layers whose visual tokens differ from those of the layer before, with their indices."""
    changes, before = [], list(range(visual_tokens))
    for layer, indices in enumerate(kept):
        if len(before) != len(indices) or before != indices.tolist():
            before = indices.tolist()
            changes.append({"layer": layer, "indices": before})
    return changes


def evidence(row: Mapping[str, Any]) -> np.ndarray:
    """Which visual tokens of an answered question its evidence boxes touch, bool `[visual_tokens]`.

    Raises:
        ValueError: they form no square raster.
    """
    if row["evidence"] is None:
        raise ValueError(f"evidence needs visual tokens in one square raster; {row['visual_tokens']} are none")
    found = np.zeros(row["visual_tokens"], dtype=bool)
    found[np.asarray(row["evidence"], dtype=np.int64)] = True
    return found


def left(kept: Sequence[dict[str, Any]], num_visual: int) -> np.ndarray:
    """Numbers of the visual tokens that enter the last layer, int64."""
    return np.asarray(kept[-1]["indices"] if len(kept) else np.arange(num_visual), dtype=np.int64)
