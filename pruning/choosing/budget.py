"""What "128 tokens" means, and which parameter of a method gets there.

There is one definition of a budget for every method: the mean, over the decoder layers, of the visual tokens that enter
the layer. A method that prunes before the language model at 128 tokens and one that prunes inside it at a mean of 128
are then comparable; "R = .9" of two methods is not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_type_hints

from pruning.choosing.base import Method

GRID = 1000
REFINED_GRID = 100_000
# Keep counts are integers, so the budget is met within half a token or so. A parameter with few settings (a layer
# index) may miss by more; past this share of the budget that is no longer the budget that was asked.
TOLERANCE = 0.05


class InfeasibleBudget(ValueError):
    """No setting of the method's own parameter reaches the budget.

    Attributes:
        floor: mean visual tokens at the parameter's strongest setting.
        nearest: mean visual tokens of the setting that comes nearest to the budget.
    """

    def __init__(self, message: str, floor: float, nearest: float) -> None:
        super().__init__(message, floor, nearest)  # all of them, so that it travels between processes
        self.floor = floor
        self.nearest = nearest

    def __str__(self) -> str:
        return str(self.args[0])


def mean_visual_tokens(per_layer: Sequence[int]) -> float:
    """Mean over the decoder layers of the visual tokens entering each: the budget of a method.

    Raises:
        ValueError: `per_layer` is empty.
    """
    if len(per_layer) == 0:
        raise ValueError("the list of visual tokens per layer is empty: give one count for every decoder layer")
    return sum(per_layer) / len(per_layer)


def tokens(budget: float | str, num_visual: int) -> float:
    """A budget in mean visual tokens: a number is taken as it is, "11.1%" as a share of `num_visual`.

    Raises:
        ValueError: not a number, not above 0, or above `num_visual`.
    """
    try:
        if isinstance(budget, str) and budget.strip().endswith("%"):
            value = float(budget.strip()[:-1]) / 100 * num_visual
        else:
            value = float(budget)
    except (TypeError, ValueError):
        raise ValueError(f'budget {budget!r} is neither a number of visual tokens nor a share like "11.1%"') from None
    if not 0 < value <= num_visual:  # also false for NaN
        raise ValueError(f"budget {budget!r} must be above 0 and at most the {num_visual} visual tokens of the prompt")
    return value


def solve(
    method: type[Method], budget: float | str, *, num_visual: int, num_layers: int, fixed: Mapping[str, Any]
) -> Method:
    """The method whose mean visual tokens come nearest to `budget`, its other parameters as in `fixed`.

    The parameter to solve is the one the method class names in `budget_parameter`. Integers are searched one by one,
    fractions in steps of .001 and then of .00001 around the best; each setting is measured by the method's own formula
    with its own rounding. Of equally near settings the lowest is taken.

    Args:
        method: its class; `pruning.solve` takes a name.
        budget: mean visual tokens over the decoder layers' inputs, or a share of `num_visual` such as "11.1%".
        num_visual: visual tokens before pruning.
        num_layers: decoder layers.
        fixed: the method's other parameters.

    Raises:
        InfeasibleBudget: the budget lies below the floor, or no setting comes within 5 % of it.
        ValueError: bad budget, a parameter that is not valid, or no setting of the parameter works on so few layers.
    """
    target = tokens(budget, num_visual)
    settings = _settings(method, num_visual, num_layers, fixed)
    lowest = _floor(settings)
    nearest = min(settings, key=lambda setting: abs(setting.mean - target))
    if isinstance(nearest.value, float):
        around = round(nearest.value * REFINED_GRID)
        span = REFINED_GRID // GRID
        finer = [value / REFINED_GRID for value in range(max(0, around - span), min(REFINED_GRID, around + span) + 1)]
        refined = _measure(method, finer, num_visual, num_layers, fixed)
        nearest = min([nearest, *refined], key=lambda setting: abs(setting.mean - target))
    if target < lowest - 1e-9:
        raise InfeasibleBudget(
            f"{method.name} cannot reach {target:.1f} mean visual tokens of {num_visual} over {num_layers} layers: "
            f"its floor is {lowest:.1f}. Ask for more, or change its other parameters.",
            floor=lowest,
            nearest=nearest.mean,
        )
    if abs(nearest.mean - target) > max(0.5, TOLERANCE * target):
        raise InfeasibleBudget(
            f"{method.name} has no setting near {target:.1f} mean visual tokens of {num_visual} over {num_layers} "
            f"layers: the nearest is {nearest.mean:.1f}. Ask for that, or change its other parameters.",
            floor=lowest,
            nearest=nearest.mean,
        )
    return nearest.method


def floor(method: type[Method], *, num_visual: int, num_layers: int, fixed: Mapping[str, Any]) -> float:
    """Mean visual tokens at the strongest setting of the method's parameter, the least budget that `solve` accepts.

    Raises:
        ValueError: as for `solve`.
    """
    return _floor(_settings(method, num_visual, num_layers, fixed))


class _Setting(NamedTuple):
    value: float | int | None
    mean: float
    method: Method


def _floor(settings: list[_Setting]) -> float:
    # The ends of the range, not the minimum over it: just below a stage boundary Sequential Prune's last stage removes
    # nearly everything one stage early, a dip of a token or two that belongs to rounding, not to the method's reach.
    return min(settings[0].mean, settings[-1].mean)


def _settings(method: type[Method], num_visual: int, num_layers: int, fixed: Mapping[str, Any]) -> list[_Setting]:
    """Every usable setting of the method's budget parameter, ascending, on the coarse grid."""
    parameter = method.budget_parameter
    if parameter is None:
        return _measure(method, [None], num_visual, num_layers, fixed)
    if parameter in fixed:
        raise ValueError(
            f"{method.name}: {parameter} is what the budget determines; give either the budget or {parameter}"
        )
    hint = get_type_hints(method)[parameter]
    if float in (hint, *get_args(hint)):
        return _measure(method, [value / GRID for value in range(GRID + 1)], num_visual, num_layers, fixed)
    return _measure(method, range(max(num_visual, num_layers) + 1), num_visual, num_layers, fixed)


def _measure(
    method: type[Method],
    values: Sequence[float | int | None],
    num_visual: int,
    num_layers: int,
    fixed: Mapping[str, Any],
) -> list[_Setting]:
    """Settings that the method accepts, with their measured means.

    Raises:
        ValueError: it accepts none; the method's own message for the middle of the range.
    """
    parameter = method.budget_parameter
    settings, refusals = [], []
    for value in values:
        try:
            made = method(**fixed, **({} if parameter is None else {parameter: value}))
            per_layer = made.visual_tokens_per_layer(num_visual, num_layers)
        except ValueError as refusal:
            refusals.append(refusal)
            continue
        settings.append(_Setting(value, mean_visual_tokens(per_layer), made))
    if not settings:
        raise refusals[len(refusals) // 2]
    return settings
