"""A method as params.yaml asks for it, and everything that what it does depends on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from experiments.asking import benchmarks, clip
from experiments.recorded import cells
from pruning import registry


@dataclass(frozen=True)
class Asked:
    """A method as params.yaml asks for it.

    Attributes:
        parameters: all but the one that a budget decides, a CLIP model loaded.
        depends_on: everything that its cells depend on, but for the budget.
    """

    parameters: dict[str, Any]
    depends_on: dict[str, Any]


def shared_by_methods(model: PreTrainedModel, benchmark: str) -> dict[str, Any]:
    """What the cells of every method depend on; reads the model's weights, so once for all of them."""
    return {
        "model": cells.model_digest(model),
        "benchmark": cells.files_digest([benchmarks.path(benchmark)]),
    }


def ask(name: str, fixed: Mapping[str, Any], model: PreTrainedModel, shared: Mapping[str, Any], *files: Path) -> Asked:
    """What to ask of a method.

    Args:
        name: of the method.
        fixed: its parameters in params.yaml's evaluate.methods.
        model: what it is to prune.
        shared: what the cells of all methods depend on.
        files: code that counts besides the `ROOMS` and the method's own: the stage's.

    Raises:
        ValueError: no such method, or a parameter is wrong.
    """
    parameters, method = clip.loaded(fixed, model.device), registry.make(name, **fixed)
    depends_on = {
        "method": name,
        "fixed": dict(fixed),
        **shared,
        "code": cells.code_digest([type(one) for one in (method, *method.made_of)], *files),
    }
    if "path" in fixed:
        depends_on["modules"] = cells.files_digest(file for file in Path(fixed["path"]).iterdir() if file.is_file())
    if "clip" in fixed:
        depends_on["clip"] = cells.model_digest(parameters["clip"])
    return Asked(parameters, depends_on)
