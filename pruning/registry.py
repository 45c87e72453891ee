"""Methods by name. A new method is one file in `pruning/methods` and one line here."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pruning.choosing import budget as budgets
from pruning.choosing.base import Method, Role
from pruning.methods.cdpruner import CDPruner
from pruning.methods.dart import DART
from pruning.methods.divprune import DivPrune
from pruning.methods.evs import EVS
from pruning.methods.fastervlm import FasterVLM
from pruning.methods.fastv import FastV
from pruning.methods.fastvid import FastVID
from pruning.methods.flashvid import FlashVID
from pruning.methods.full import Full
from pruning.methods.glimpse import GlimpsePrune
from pruning.methods.grid import Grid
from pruning.methods.hiprune import HiPrune
from pruning.methods.holov import HoloV
from pruning.methods.mmtok import MMTok
from pruning.methods.oracle import Oracle
from pruning.methods.oracle_inside import OracleInside
from pruning.methods.pool import Pool
from pruning.methods.prumerge import PruMerge
from pruning.methods.prumerge_plus import PruMergePlus
from pruning.methods.prunesid import PruneSID
from pruning.methods.pyramiddrop import PyramidDrop
from pruning.methods.random import Random
from pruning.methods.random_inside import RandomInside
from pruning.methods.scope import Scope
from pruning.methods.sequence import Sequence
from pruning.methods.sequential_prune import SequentialPrune
from pruning.methods.sparsevlm import SparseVLM
from pruning.methods.tome import ToMe
from pruning.methods.vcast import VCast
from pruning.methods.vidcom2 import VidCom2
from pruning.methods.visionzip import VisionZip
from pruning.methods.vispruner import VisPruner
from pruning.methods.vscan import VScan
from pruning.methods.vtw import VTW

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Full,
        Random,
        Grid,
        Pool,
        Oracle,
        VisPruner,
        FasterVLM,
        CDPruner,
        DivPrune,
        VisionZip,
        PruMerge,
        PruMergePlus,
        ToMe,
        Scope,
        HoloV,
        MMTok,
        PruneSID,
        HiPrune,
        VScan,
        VidCom2,
        FastVID,
        EVS,
        VCast,
        FlashVID,
        SequentialPrune,
        FastV,
        PyramidDrop,
        VTW,
        DART,
        SparseVLM,
        GlimpsePrune,
        RandomInside,
        OracleInside,
        Sequence,
    )
}


def names() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(METHODS)


def of_role(role: Role) -> tuple[str, ...]:
    """Names of the methods of one role."""
    return tuple(name for name, method in METHODS.items() if method.role == role)


def get(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        ValueError: there is no such method; the message names those there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}. Methods: {', '.join(METHODS)}")
    return METHODS[name]


def make(name: str, **parameters: Any) -> Method:
    """A method with its paper's parameters.

    Methods made of others (`sequence`) take them as mappings too, such as {"name": "fastv", "k": 2, "r": 0.5}.

    Raises:
        ValueError: unknown method, or an unknown or invalid parameter; the message names what is valid.
    """
    return get(name)(**_valid(name, parameters))


def solve(name: str, budget: float | str, *, num_visual: int, num_layers: int, **fixed: Any) -> Method:
    """The method whose mean visual tokens come nearest to a budget; see `pruning.choosing.budget.solve`.

    Args:
        name: a name of the registry.
        budget: mean visual tokens over the decoder layers' inputs, or a share of `num_visual` such as "11.1%".
        num_visual: visual tokens before pruning.
        num_layers: decoder layers.
        fixed: the method's other parameters, as `make` takes them.

    Raises:
        InfeasibleBudget: the budget lies below the floor, or no setting comes within 5 % of it.
        ValueError: bad budget, unknown method or parameter, or no setting of the parameter works on so few layers.
    """
    parameters = _valid(name, fixed)
    return budgets.solve(get(name), budget, num_visual=num_visual, num_layers=num_layers, fixed=parameters)


def floor(name: str, *, num_visual: int, num_layers: int, **fixed: Any) -> float:
    """Mean visual tokens at the strongest setting of the method's parameter, the least budget that `solve` accepts.

    Raises:
        ValueError: as for `solve`.
    """
    return budgets.floor(get(name), num_visual=num_visual, num_layers=num_layers, fixed=_valid(name, fixed))


def _valid(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that the method knows, methods in the place of mappings that name them; ValueError for others."""
    valid = [field.name for field in fields(get(name))]
    for parameter in parameters:
        if parameter not in valid:
            raise ValueError(f"{name} has no parameter {parameter!r}. Parameters: {', '.join(valid) or 'none'}")
    return {parameter: _resolved(value) for parameter, value in parameters.items()}


def _resolved(value: Any) -> Any:
    """A list that names methods by mappings, with the methods in their place; anything else as it is."""
    named = [isinstance(one, Mapping) and "name" in one for one in value] if isinstance(value, list | tuple) else []
    if not any(named):
        return value
    return [make(**one) if by_name else one for one, by_name in zip(value, named, strict=True)]
