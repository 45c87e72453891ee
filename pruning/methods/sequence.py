"""Two methods at once: one before the language model and one inside it."""

from collections.abc import Mapping
from collections.abc import Sequence as Listed
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from pruning.choosing.base import InsideLLM, Method, PerImage, Role
from pruning.models.sizes import Sizes


@dataclass
class Sequence(Method):
    """A method before the language model, then one inside it, over the tokens that the first one left.

    Positions are those of the one and then of the other: a method inside the language model that keeps "original"
    positions keeps those that the first one gave. Budgets and FLOPs are those of the whole: a budget is met by what the
    first method keeps of every image, the second one staying as it is. So its reach ends above, where the first one
    keeps everything, and `pruning.solve` says so.

    Parameters:
        methods: a method before the language model and one inside it, in this order. `pruning.make` also takes mappings
            of their names and parameters such as {"name": "fastv", "k": 2, "r": 0.5}.
        keep: tokens that the first method keeps of every image, in place of its own number.

    Example:
        with Sequence([VisPruner(keep=192), FastV(k=2, r=0.5)])(model):
            model.generate(**inputs)
    """

    name: ClassVar[str] = "sequence"
    label: ClassVar[str] = "Sequence"
    role: ClassVar[Role] = "both"
    budget_parameter: ClassVar[str | None] = "keep"

    methods: Listed[Method] = ()
    keep: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.methods, (str, Mapping)) or not isinstance(self.methods, Listed):
            raise ValueError(f"methods must be a list of methods, not {self.methods!r}")
        for method in self.methods:
            if not isinstance(method, Method):
                raise ValueError(
                    f"methods: give each as a Method, or to pruning.make as a mapping with its name, not {method!r}"
                )
        self._before, self._inside = _split(self.methods)
        if self.keep is not None:
            if self._before.budget_parameter != "keep":
                raise ValueError(f"{self._before.name} has no number of tokens to keep: leave keep out")
            number: Any = {"keep": self.keep}
            self._before = replace(self._before, **number)

    def parts(self) -> tuple[PerImage | None, InsideLLM | None]:
        return self._before, self._inside

    @property
    def made_of(self) -> Listed[Method]:
        return self.methods

    @property
    def changes_tower(self) -> bool:  # type: ignore[override]
        return any(method.changes_tower for method in self.methods)

    @property
    def uses_cache(self) -> bool:
        return self._inside.uses_cache

    def for_questions(self, questions: Listed[Mapping[str, Any]]) -> Self:
        return replace(self, methods=[method.for_questions(questions) for method in self.methods])

    def written(self) -> dict[str, Any]:
        return super().written() | {"methods": [{"name": part.name, **part.written()} for part in self.methods]}

    def visual_tokens_per_layer(self, num_visual: int, num_layers: int) -> list[int]:
        return self._inside.visual_tokens_per_layer(self._left(num_visual, num_layers), num_layers)

    def choosing_flops(self, sizes: Sizes) -> int:
        left = self._left(sizes.visual_tokens, sizes.layers)
        return self._before.choosing_flops(sizes) + self._inside.choosing_flops(replace(sizes, visual_tokens=left))

    def _left(self, num_visual: int, num_layers: int) -> int:
        return self._before.visual_tokens_per_layer(num_visual, num_layers)[0]


def _split(methods: Listed[Method]) -> tuple[PerImage, InsideLLM]:
    names = [method.name for method in methods]
    if len(methods) != 2:
        raise ValueError(f"methods={names}: give two, one before the language model and one inside it")
    (before, already_inside), (too, inside) = methods[0].parts(), methods[1].parts()
    if before is not None and inside is not None and already_inside is None and too is None:
        return before, inside
    places = [_place(method) for method in methods]
    if places == ["inside", "before"]:
        raise ValueError(f"{names[1]} acts before the language model and {names[0]} inside it: list {names[1]} first")
    if places[0] == places[1]:
        where = {"before": "before the language model", "inside": "inside the language model"}.get(places[0], "twice")
        raise ValueError(
            f"{names[0]} and {names[1]} both act {where}, where one choice would undo the other: combine one method "
            "before it with one inside it"
        )
    raise ValueError(f"{' and '.join(names)} cannot be combined: one of them already acts before and inside")


def _place(method: Method) -> str:
    before, inside = method.parts()
    if before is not None and inside is not None:
        return "both"
    return "before" if before is not None else "inside"
