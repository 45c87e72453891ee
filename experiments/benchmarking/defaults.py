"""A method's own parameters by the depth of the model, where a recipe gives none.

The rule: a layer that a paper fixes as the first to prune stays that layer at every depth, since it says how much the
model must have read first (FastV, DART and Sequential Prune at K=2 in models of 32 and of 40 layers). Layers that a
paper spreads over the decoder keep their share of its depth, rounded (SparseVLM's 2, 6 and 15 of 32). PyramidDrop's
quarters are shares by themselves. What a budget decides is never among them, and params.yaml's values, which fit the
embedded model, are not used.
"""

from typing import Any

SPARSEVLM_LAYERS = (2, 6, 15)
SPARSEVLM_DEPTH = 32


def own_parameters(method: str, num_layers: int) -> dict[str, Any]:
    """The parameters that a method is run with at a budget on a decoder of so many layers.

    Args:
        method: a name of the registry.
        num_layers: decoder layers.
    """
    if method in ("fastv", "dart", "random_inside", "oracle_inside"):
        return {"k": 2}
    if method == "sequential_prune":
        return {"k": 2, "step": 10}
    if method == "sparsevlm":
        return {"version": "v1", "layers": scaled(SPARSEVLM_LAYERS, SPARSEVLM_DEPTH, num_layers)}
    return {}


def scaled(layers: tuple[int, ...], depth: int, num_layers: int) -> list[int]:
    """Layers at the same shares of another depth, rounded, each at least one behind the one before."""
    found: list[int] = []
    for layer in layers:
        found.append(max(round(layer * num_layers / depth), found[-1] + 1 if found else 1))
    return found
