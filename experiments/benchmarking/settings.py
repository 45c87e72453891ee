"""The settings that a recipe asks of a method, and the method that each becomes for a number of visual tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pruning
from experiments.benchmarking.defaults import own_parameters
from experiments.probing.probes import KeepByLastQuery, KeepQuartile
from pruning import presets
from pruning.choosing.base import Method
from pruning.choosing.budget import InfeasibleBudget

# Not methods, but measurements that papers report beside them; by name in recipes, and not in the registry.
PROBES: dict[str, type[Method]] = {probe.name: probe for probe in (KeepQuartile, KeepByLastQuery)}


@dataclass(frozen=True)
class Setting:
    """A method as it is run.

    Attributes:
        method: a name of the registry, or of `PROBES`.
        label: names the setting among the method's, in paths and tables.
        parameters: the method's own; of a budget or a preset, those beside it.
        budget: a share of the visual tokens, as the mean over the decoder layers' inputs.
        tokens: a number that a paper names; the setting is then `pruning.paper`'s for `model`.
        model: see `tokens`.
        counted: what that number counts, as `pruning.presets.Preset.counted` says.
    """

    method: str
    label: str
    parameters: dict[str, Any] = field(default_factory=dict)
    budget: float | None = None
    tokens: int | None = None
    model: str | None = None
    counted: str = ""

    @property
    def type(self) -> type[Method]:
        """The method's class."""
        return PROBES[self.method] if self.method in PROBES else pruning.registry.get(self.method)

    def for_image(self, visual_tokens: int, num_layers: int, loaded: Mapping[str, Any]) -> Method:
        """The method for an image of so many visual tokens.

        Args:
            visual_tokens: before pruning.
            num_layers: of the decoder.
            loaded: parameters to take the place of those of the same name (a CLIP model in that of its folder).

        Raises:
            Unreachable: no setting of the method does what is asked on such an image.
        """
        try:
            if self.tokens is not None:
                if visual_tokens != presets.NUM_VISUAL:
                    raise Unreachable(
                        f"published for {presets.NUM_VISUAL} visual tokens; this image has {visual_tokens}"
                    )
                method = pruning.paper(self.method, model=str(self.model), tokens=self.tokens, **self._beside(loaded))
            elif self.budget is not None:
                fixed = own_parameters(self.method, num_layers) | self._beside(loaded)
                method = pruning.solve(
                    self.method, self.budget * visual_tokens, num_visual=visual_tokens, num_layers=num_layers, **fixed
                )
            elif self.method in PROBES:
                method = self.type(**self._beside(loaded))
            else:
                method = pruning.make(self.method, **self._beside(loaded))
        except InfeasibleBudget as error:
            raise Unreachable(str(error)) from error
        try:
            # A method that decides by the image says so with a ValueError, too.
            method.visual_tokens_per_layer(visual_tokens, num_layers)
        except ValueError as error:
            if "there is no formula" not in str(error):
                raise Unreachable(str(error)) from error
        return method

    def _beside(self, loaded: Mapping[str, Any]) -> dict[str, Any]:
        return {name: loaded.get(name, value) for name, value in self.parameters.items()}


class Unreachable(ValueError):
    """What is asked of a method cannot be had on an image; the message says why."""


def settings_of(method: str, asked: Mapping[str, Any], model: str) -> list[Setting]:
    """The settings of one entry of a recipe's `methods`.

    Args:
        method: a name of the registry or of `PROBES`.
        asked: `tokens`, `budgets` and `settings` (a mapping of labels to all parameters), none of them for a method
            without a parameter for it; `parameters`, which go beside tokens and budgets.
        model: the recipe's, whose published settings `tokens` takes.

    Raises:
        ValueError: unknown method or parameter, no published setting, or nothing asked.
    """
    beside = dict(asked.get("parameters") or {})
    found = []
    for tokens in asked.get("tokens") or ():
        known = presets.presets(method, model)
        if tokens not in known:
            pruning.paper(method, model=model, tokens=tokens)  # says which there are
        found.append(
            Setting(method, f"tokens-{tokens}", beside, tokens=tokens, model=model, counted=known[tokens].counted)
        )
    found += [Setting(method, f"budget-{budget:g}", beside, budget=budget) for budget in asked.get("budgets") or ()]
    found += [Setting(method, label, beside | given) for label, given in (asked.get("settings") or {}).items()]
    if not found and method == "full":
        found = [Setting(method, "full")]
    if not found:
        raise ValueError(f"{method}: give `tokens`, `budgets` or `settings`")
    for setting in found:
        try:
            made = (
                setting.type(**setting.parameters) if method in PROBES else pruning.make(method, **setting.parameters)
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"{method}, {setting.label}: {error}") from error
        if setting.budget is not None and made.budget_parameter in setting.parameters:
            raise ValueError(f"{method}: `{made.budget_parameter}` follows from the budget; leave it out")
    return found
