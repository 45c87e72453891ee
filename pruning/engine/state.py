"""What the engine knows about the running call of the model, and what it remembers from a prefill until the next."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pruning.engine.seen import Prompt
from pruning.engine.tokens import Choice, Tokens
from pruning.models.projections import Watch
from pruning.models.vision import Vision

# Where `Pass.chosen` has the choice made before the language model.
BEFORE = -1


@dataclass
class Call:
    """The running call of the model.

    Attributes:
        labels: whether the caller wants a loss.
        cache: the KV cache passed in, if any.
        ids_BL: token ids, if given.
        placeholders: for "image" and, where the family has it, "video": bool [B, L], where its placeholders are.
        given: which of these came with the prompt, as pixels or already encoded.
        odd_mask: whether the attention mask is something else than None or 2-D.
    """

    labels: bool = False
    cache: Any = None
    ids_BL: Tensor | None = None
    placeholders: dict[str, Tensor] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)
    odd_mask: bool = False

    @property
    def cached(self) -> int:
        """Tokens in the cache of layer 0."""
        return 0 if self.cache is None else int(self.cache.get_seq_length())

    @property
    def decoding(self) -> bool:
        return self.cached > 0

    def continues(self, before_BL: Tensor | None, vision: Vision) -> bool:
        """Whether this call runs an earlier prompt again with new tokens behind it, as decoding without a cache does.

        `generate` then encodes the images once, so the vision tower has not run since. Comparing the ids costs a host
        synchronisation, but only in this slow mode.
        """
        now_BL = self.ids_BL
        if vision.fresh or before_BL is None or now_BL is None or before_BL.shape[0] != now_BL.shape[0]:
            return False
        length = before_BL.shape[1]
        return now_BL.shape[1] > length and torch.equal(now_BL[:, :length], before_BL)


@dataclass
class Pass:
    """What the engine remembers from a prefill until the next one.

    Attributes:
        prompt: the prompt as it entered the first decoder layer.
        asked_BL: its token ids, without what decoding without a KV cache has put behind them (which beams reorder).
        full: the tokens of the full prompt; layers they enter are left alone.
        copies: rows (beams) that stand for one sample.
        layers: the tokens entering every decoder layer.
        appended: whether the method's own token now stands behind every row.
        counts: visual tokens to keep in every row, for every layer in front of which tokens leave.
        chosen: what stayed there and (at `BEFORE`) before the language model, kept for decoding without a KV cache.
        watches: for each of those layers, the layer in front of it, whose attention the choice may need.
    """

    prompt: Prompt
    asked_BL: Tensor | None
    full: Tokens
    copies: int
    layers: list[Tokens]
    appended: bool = False
    counts: dict[int, list[int | None]] = field(default_factory=dict)
    chosen: dict[int, Choice] = field(default_factory=dict)
    watches: dict[int, Watch] = field(default_factory=dict)

    def remove(self) -> None:
        for watch in self.watches.values():
            watch.remove()
        self.watches.clear()
