"""Choosing runs no operation that waits for the device. (`tolist` of a CPU tensor is no operation: not seen here.)"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import pruning
from pruning import registry
from tests.tiny_models import tiny_llava

SYNCS = ("_local_scalar_dense", "nonzero", "masked_select", "item", "equal", "is_nonzero", "unique")
VISUAL = 36
PARAMETERS = {
    "oracle": {"keep": 12, "boxes": [[[0.1, 0.1, 0.5, 0.6]], [[0.2, 0.2, 0.9, 0.9]]]},
    "oracle_inside": {"fixed_remain_ratio": 0.34, "boxes": [[[0.1, 0.1, 0.5, 0.6]], [[0.2, 0.2, 0.9, 0.9]]]},
    "prumerge": {"keep": 12, "neighbours": 3},
    "prumerge_plus": {"keep": 12, "neighbours": 3},
    "fastv": {"k": 2},
    "random_inside": {"k": 2},
    "sequential_prune": {"k": 1, "step": 25},
    "pyramiddrop": {},
    "sparsevlm": {"layers": [0, 1, 2], "share": 0.5},
    "dart": {"max_tokens": 8},
    "vtw": {"k": 3},
}
# A singular value decomposition reads the solver's status back, one for a batch.
STATUS = {"prunesid": ["_local_scalar_dense"] * 2}
NAMES = [
    name
    for name in registry.names()
    if name not in ("full", "sequence", "glimpse") and not registry.get(name).videos_only
]


class Syncs(TorchDispatchMode):
    """Counts what would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in SYNCS or by_mask:
            self.names.append(name)
        return function(*args, **kwargs)


@torch.no_grad()
def syncs_of(method, built):
    """Those of all that a method chooses for a batch, on a model whose own work is not counted."""
    (model, inputs), found = built, []

    def counted(choice):
        def choose(*args):
            with Syncs() as mode:
                result = choice(*args)
            found.extend(mode.names)
            return result

        return choose

    parts = method.parts()
    for part in parts:
        if part is not None:
            attribute = "select" if hasattr(part, "select") else "choose"
            setattr(part, attribute, counted(getattr(part, attribute)))
    method.parts = lambda: parts
    with method(model):
        model(**inputs)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_choosing_reads_nothing_back(name):
    found = syncs_of(pruning.make(name, **PARAMETERS.get(name, {"keep": 12})), tiny_llava((1, 1)))
    assert found == STATUS.get(name, [])
