"""Golden cases of the methods that choose by what the vision tower saw: `<method>_<nn>.npz`, in float64.

A runner takes the case's parameters and its arrays, every array with a batch axis, and returns what the method made of
them under the golden data's own names (`kept`, and for merging methods `tokens` and the like). To add a method, write
its runner and put it into `RUNNERS`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from experiments.conformance.outcome import Case, MalformedGolden, Outcome, first_difference, read_npz
from pruning.methods.vispruner import VisPruner
from pruning.observed import Observed

TOLERANCE = 1e-9

Runner = Callable[[Case, Case], dict[str, Tensor]]


class Given(Observed):
    """What a method sees, given as arrays under `Observed`'s names instead of worked out from a model's run."""

    def __init__(self, num_visual: int, **arrays: Tensor) -> None:
        batch = next(iter(arrays.values())).shape[0]
        # They take the place of cached properties, which is where those would keep their values too.
        self.__dict__.update(arrays, slots_BN=torch.arange(num_visual).expand(batch, -1))


def vispruner(params: Case, arrays: Case) -> dict[str, Tensor]:
    method = VisPruner(keep=params["keep"], important_ratio=params["important_ratio"])
    attention, features = arrays["cls_attention"], arrays["features"]
    seen = Given(features.shape[1], cls_attention_BHN=attention, features_BNC=features)
    return {"kept": method.select(seen)}


RUNNERS: dict[str, Runner] = {"vispruner": vispruner}

# Shared by all images of a batch, hence never given a batch axis.
SHARED = {"clip_text_embeds"}


def run(folder: Path) -> Iterator[Outcome]:
    """Every case of the folder, in the order of the file names.

    Raises:
        MalformedGolden: a file is unreadable or lacks what its method needs.
    """
    for path in sorted(folder.glob("*.npz")):
        arrays = read_npz(path)
        params = arrays.part("params")
        method = params["method"]
        if method not in RUNNERS:
            yield Outcome(path.stem, method, "unsupported")
            continue
        difference = _difference(RUNNERS[method], params, arrays)
        yield Outcome(path.stem, method, "differ" if difference else "agree", difference)


def _difference(runner: Runner, params: Case, arrays: Case) -> str:
    golden_kept = arrays["kept"]
    single = golden_kept.ndim == 1
    batched = {
        name: array[None] if single and name not in SHARED else array
        for name, array in arrays.items()
        if name != "params"
    }
    try:
        outputs = runner(params, Case(arrays.source, batched))
    except MalformedGolden:
        raise
    except Exception as error:  # a method that fails on a case disagrees with it; the other cases still run
        return f"raised {type(error).__name__}: {error}"
    for name, ours in outputs.items():
        golden = arrays[name][None] if single else arrays[name]
        if difference := first_difference(name, ours, golden, TOLERANCE):
            return difference
    return ""
