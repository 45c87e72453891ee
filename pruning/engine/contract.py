"""What the engine asks of a method: one that chooses before the language model, one that chooses inside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from pruning.engine.seen import Observed, ObservedLayer
from pruning.engine.tokens import Choice
from pruning.models.family import Family


@dataclass(frozen=True)
class MergedTokens:
    """New visual tokens for B images, for methods that merge. T tokens take the place of each image's N.

    Attributes:
        tokens_BTD: embeddings in the width of the language model, in the order in which they enter it.
        slots_BT: int64, ascending, places among the N whose positions they take.
        numbers_BT: int64, the visual token each one stands for in the record, or -1 for one made of several.
        members_BTN: bool, the visual tokens that each one is made of.
        counts: tokens of each image where these differ, else None. An image with fewer than T repeats some of its
            tokens, slots and numbers.
    """

    tokens_BTD: Tensor
    slots_BT: Tensor
    numbers_BT: Tensor
    members_BTN: Tensor
    counts: Sequence[int] | None = None


@dataclass(frozen=True)
class Selected:
    """Visual tokens kept of B images where their number differs.

    Attributes:
        index_BK: int64, the kept ones of the N. An image with fewer than K repeats one of its own.
        counts: how many different ones each image has.
    """

    index_BK: Tensor
    counts: Sequence[int]


class Before(Protocol):
    """Chooses for every image on its own; `pruning.choosing.base.BeforeLLM` says what each member means."""

    def repacks(self, family: Family) -> bool: ...

    def attention_blocks(self, family: Family) -> Sequence[int]: ...

    def count(self, num_visual: int) -> int | None: ...

    def select(self, seen: Observed) -> "Tensor | MergedTokens | Selected": ...


class Inside(Protocol):
    """Chooses in front of decoder layers; `pruning.choosing.base.InsideLLM` says what each member means."""

    prune_earlier_caches: ClassVar[bool]
    mode: str

    def repacks(self, family: Family) -> bool: ...

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]: ...

    def vision_blocks(self, family: Family) -> Sequence[int]: ...

    def deep_prompt(self, family: Family) -> Tensor | None: ...

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice: ...
