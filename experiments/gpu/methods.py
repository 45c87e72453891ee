"""Which methods are measured, and in which setting."""

from typing import Any

import pruning
from pruning.choosing.base import Method
from pruning.glimpse.modules import GlimpseModules

# In the order in which they are measured.
BEFORE = ("vispruner", "random", "fastervlm", "divprune", "visionzip", "cdpruner", "prumerge_plus")
INSIDE = ("fastv", "sequential_prune", "sparsevlm", "pyramiddrop", "dart", "vtw")
NAMES = tuple(dict.fromkeys(("vispruner", "fastv", "sequential_prune", "glimpse", *BEFORE, *INSIDE)))


def method_at(name: str, keep: int, visual_tokens: int, layers: int, glimpse: GlimpseModules | None) -> Method | None:
    """A method at a mean of `keep` visual tokens over the decoder layers' inputs; None: it is not made for the model.

    GlimpsePrune, whose first layers see everything, keeps that many in the end.

    Raises:
        InfeasibleBudget: no setting comes within 5 % of that mean.
    """
    if name == "glimpse":
        if glimpse is None:
            return None
        return pruning.make(name, modules=glimpse, fixed_remain_ratio=(keep + 0.5) / visual_tokens)
    if name in BEFORE:
        return pruning.make(name, keep=keep)
    quarter = layers // 4
    fixed: dict[str, dict[str, Any]] = {
        "fastv": {"k": 2},
        "sequential_prune": {"k": 2, "step": 10 if keep > visual_tokens / 6 else 25},
        "pyramiddrop": {"layers": [2, quarter, 2 * quarter] if quarter > 2 else [1, 2, 4]},
        "sparsevlm": {"layers": [2, 6, 15] if layers > 16 else [0, 2, 4]},
        "dart": {"k": 2},
    }
    return pruning.solve(name, keep, num_visual=visual_tokens, num_layers=layers, **fixed.get(name, {}))
