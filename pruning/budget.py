"""What "128 tokens" means, and which parameter of a method gets there.

There is one definition of a budget for every method: the mean, over the decoder layers, of the visual tokens that enter
the layer. A method that prunes before the language model at 128 tokens and one that prunes inside it at a mean of 128
are then comparable; "R = .9" of two methods is not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self, get_args, get_type_hints

from transformers import PretrainedConfig

if TYPE_CHECKING:
    from pruning.base import Method

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


@dataclass(frozen=True)
class Sizes:
    """The counts and widths that FLOPs are made of.

    `visual_tokens` enter the decoder before any pruning; `vision_tokens` are what the vision tower computes on (with
    [CLS] and before any patch merger), summed over all images and crops. `vision_layers` are all layers of the tower,
    `observed_layers` those up to the one whose features methods see. `has_cls` says whether the tower puts a [CLS] in
    front of the patches, `projects_alone` whether the projector maps those features token by token.
    """

    visual_tokens: int
    text_tokens: int
    vision_tokens: int
    vision_width: int
    vision_heads: int
    vision_layers: int
    observed_layers: int
    has_cls: bool
    projects_alone: bool
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    layers: int

    @classmethod
    def of(
        cls, config: PretrainedConfig, *, visual_tokens: int, text_tokens: int, vision_tokens: int | None = None
    ) -> Self:
        """Sizes of a model of one of the supported families.

        Args:
            config: the configuration of the entire model (`model.config`).
            visual_tokens: placeholders of the image token in the prompt.
            text_tokens: all other tokens of the prompt.
            vision_tokens: tokens the vision tower computes on; derived from `visual_tokens` where the family fixes it.

        Raises:
            ValueError: `vision_tokens` is missing and does not follow from `visual_tokens` (LLaVA-NeXT: the number of
                crops depends on the image).
            TypeError: the configuration has no vision or text part.
        """
        vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
        if vision is None or text is None:
            raise TypeError(f"{type(config).__name__} has no vision_config and text_config: pass a LVLM's model.config")
        if vision_tokens is None:
            vision_tokens = _vision_tokens(config, visual_tokens)
        heads = text.num_attention_heads
        return cls(
            visual_tokens=visual_tokens,
            text_tokens=text_tokens,
            vision_tokens=vision_tokens,
            # Qwen2-VL alone keeps the decoder's width in hidden_size and its own in embed_dim.
            vision_width=getattr(vision, "embed_dim", None) or vision.hidden_size,
            vision_heads=_either(vision, "num_attention_heads", "num_heads"),
            vision_layers=_either(vision, "num_hidden_layers", "depth"),
            observed_layers=_observed_layers(config),
            has_cls=_has_cls(vision),
            projects_alone=isinstance(getattr(config, "vision_feature_layer", None), int),
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            intermediate=text.intermediate_size,
            layers=text.num_hidden_layers,
        )


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


def solve(name: str, budget: float | str, *, num_visual: int, num_layers: int, **fixed: Any) -> "Method":
    """The method whose mean visual tokens come nearest to `budget`, its other parameters as in `fixed`.

    The parameter to solve is the one the method class names in `budget_parameter`. Integers are searched one by one,
    fractions in steps of .001 and then of .00001 around the best; each setting is measured by the method's own formula
    with its own rounding. Of equally near settings the lowest is taken.

    Args:
        name: a name of the registry.
        budget: mean visual tokens over the decoder layers' inputs, or a share of `num_visual` such as "11.1%".
        num_visual: visual tokens before pruning.
        num_layers: decoder layers.

    Raises:
        InfeasibleBudget: the budget lies below the floor, or no setting comes within 5 % of it.
        ValueError: bad budget, unknown method or parameter, or no setting of the parameter works on so few layers.
    """
    target = tokens(budget, num_visual)
    settings = _settings(name, num_visual, num_layers, fixed)
    lowest = _floor(settings)
    nearest = min(settings, key=lambda setting: abs(setting.mean - target))
    if isinstance(nearest.value, float):
        around = round(nearest.value * REFINED_GRID)
        span = REFINED_GRID // GRID
        finer = [value / REFINED_GRID for value in range(max(0, around - span), min(REFINED_GRID, around + span) + 1)]
        refined = _measure(name, finer, num_visual, num_layers, fixed)
        nearest = min([nearest, *refined], key=lambda setting: abs(setting.mean - target))
    if target < lowest - 1e-9:
        raise InfeasibleBudget(
            f"{name} cannot reach {target:.1f} mean visual tokens of {num_visual} over {num_layers} layers: "
            f"its floor is {lowest:.1f}. Ask for more, or change its other parameters.",
            floor=lowest,
            nearest=nearest.mean,
        )
    if abs(nearest.mean - target) > max(0.5, TOLERANCE * target):
        raise InfeasibleBudget(
            f"{name} has no setting near {target:.1f} mean visual tokens of {num_visual} over {num_layers} layers: "
            f"the nearest is {nearest.mean:.1f}. Ask for that, or change its other parameters.",
            floor=lowest,
            nearest=nearest.mean,
        )
    return nearest.method


def floor(name: str, *, num_visual: int, num_layers: int, **fixed: Any) -> float:
    """Mean visual tokens at the strongest setting of the method's parameter, the least budget that `solve` accepts.

    Raises:
        ValueError: as for `solve`.
    """
    return _floor(_settings(name, num_visual, num_layers, fixed))


class _Setting(NamedTuple):
    value: float | int | None
    mean: float
    method: "Method"


def _floor(settings: list[_Setting]) -> float:
    # The ends of the range, not the minimum over it: just below a stage boundary Sequential Prune's last stage removes
    # nearly everything one stage early, a dip of a token or two that belongs to rounding, not to the method's reach.
    return min(settings[0].mean, settings[-1].mean)


def _settings(name: str, num_visual: int, num_layers: int, fixed: dict[str, Any]) -> list[_Setting]:
    """Every usable setting of the method's budget parameter, ascending, on the coarse grid."""
    from pruning import registry  # the methods' modules import this one

    method_class = registry.get(name)
    parameter = method_class.budget_parameter
    if parameter is None:
        return _measure(name, [None], num_visual, num_layers, fixed)
    if parameter in fixed:
        raise ValueError(f"{name}: {parameter} is what the budget determines; give either the budget or {parameter}")
    hint = get_type_hints(method_class)[parameter]
    if float in (hint, *get_args(hint)):
        return _measure(name, [value / GRID for value in range(GRID + 1)], num_visual, num_layers, fixed)
    return _measure(name, range(max(num_visual, num_layers) + 1), num_visual, num_layers, fixed)


def _measure(
    name: str, values: Sequence[float | int | None], num_visual: int, num_layers: int, fixed: dict[str, Any]
) -> list[_Setting]:
    """Settings that the method accepts, with their measured means.

    Raises:
        ValueError: it accepts none; the method's own message for the middle of the range.
    """
    from pruning import registry

    parameter = registry.get(name).budget_parameter
    settings, refusals = [], []
    for value in values:
        try:
            method = registry.make(name, **fixed, **({} if parameter is None else {parameter: value}))
            per_layer = method.visual_tokens_per_layer(num_visual, num_layers)
        except ValueError as refusal:
            refusals.append(refusal)
            continue
        settings.append(_Setting(value, mean_visual_tokens(per_layer), method))
    if not settings:
        raise refusals[len(refusals) // 2]
    return settings


def _vision_tokens(config: PretrainedConfig, visual_tokens: int) -> int:
    vision = config.vision_config
    if merge := getattr(vision, "spatial_merge_size", None):
        return visual_tokens * merge**2
    if hasattr(config, "image_grid_pinpoints"):
        raise ValueError(
            "LLaVA-NeXT cuts an image into a varying number of crops: pass vision_tokens, the sum over crops"
        )
    tokens = (vision.image_size // vision.patch_size) ** 2 + _has_cls(vision)
    # "default" takes the first token off, whether it is a [CLS] or not.
    per_image = tokens - (config.vision_feature_select_strategy == "default")
    return math.ceil(visual_tokens / per_image) * tokens


def _has_cls(vision: PretrainedConfig) -> bool:
    """Of the towers that the families know CLIP's alone has a [CLS]; SigLIP's and Qwen's have none."""
    return bool(vision.model_type == "clip_vision_model")


def _observed_layers(config: PretrainedConfig) -> int:
    """As `vision_layer` of the family (pruning/families.py), of which there is no model here, plus one."""
    layers = _either(config.vision_config, "num_hidden_layers", "depth")
    if full_attention := getattr(config.vision_config, "fullatt_block_indexes", None):
        return int(max(full_attention)) + 1
    chosen = getattr(config, "vision_feature_layer", None)
    if chosen is None:
        return layers
    last = chosen if isinstance(chosen, int) else chosen[-1]
    return int(last if last >= 0 else layers + 1 + last)


def _either(config: PretrainedConfig, *names: str) -> int:
    """The first of several names that the families use for the same number."""
    for name in names:
        if hasattr(config, name):
            return int(getattr(config, name))
    raise TypeError(f"{type(config).__name__} has none of {', '.join(names)}")
