"""Checks of method parameters: one clear error each, naming the parameter and what to change."""

import math
import numbers
from collections.abc import Sequence
from itertools import pairwise
from typing import Any


def whole_number(name: str, value: Any, *, minimum: int = 0) -> None:
    """Raise ValueError unless `value` is an integer of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, not {value!r}")


def fraction(name: str, value: Any, *, zero: bool = True, one: bool = True) -> None:
    """Raise ValueError unless `value` is a real number in 0..1; `zero` and `one` say whether the ends are allowed."""
    low, high = "[" if zero else "(", "]" if one else ")"
    if not _finite(value) or not 0 <= value <= 1 or (value == 0 and not zero) or (value == 1 and not one):
        raise ValueError(f"{name} must be a number in {low}0, 1{high}, not {value!r}")


def not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite real number of at least 0."""
    if not _finite(value) or value < 0:
        raise ValueError(f"{name} must be a number of at least 0, not {value!r}")


def above_zero(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite real number above 0."""
    if not _finite(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0, not {value!r}")


def between(name: str, value: Any, low: float, high: float) -> None:
    """Raise ValueError unless `value` is a real number from `low` to `high`."""
    if not _finite(value) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low} to {high}, not {value!r}")


def _finite(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def keep_of(keep: int, num_visual: int) -> None:
    """Raise ValueError unless an image has as many visual tokens as are to be kept."""
    if keep > num_visual:
        raise ValueError(f"keep={keep} is above the {num_visual} visual tokens of an image: lower keep")


def one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def percentage(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a real number above 0 and at most 100."""
    if not _finite(value) or not 0 < value <= 100:
        raise ValueError(f"{name} must be a number in (0, 100], not {value!r}")


def ascending_layers(name: str, value: Any, *, minimum: int = 1) -> None:
    """Raise ValueError unless `value` is a list of ascending whole numbers of at least `minimum`."""
    whole = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    for layer in value if whole else []:
        whole_number(f"every entry of {name}", layer, minimum=minimum)
    if not whole or any(later <= earlier for earlier, later in pairwise(value)):
        raise ValueError(f"{name} must list at least one layer, in ascending order, not {value!r}")
