"""DART: a few pivot tokens each bring along the visual tokens least like themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM
from pruning.choosing.selection import rank
from pruning.engine.seen import ObservedLayer
from pruning.engine.tokens import Choice, take_tokens, upload
from pruning.models.sizes import Sizes

ORDERS = ("norm_desc", "index_asc", "cpython_set")


@dataclass
class DART(InsideLLM):
    """Duplication-Aware Reduction of Tokens, Wen et al., arXiv 2502.11494, section 4.

    In front of layer k. Pivots are the visual tokens and the text tokens behind the images whose keys (rotary embedding
    applied) have the largest L1 norm in layer k-1. One after the other, each pivot takes max_tokens // pivots of the
    visual tokens not taken yet, the least cosine-similar to itself; compared are the hidden states after the model's
    final norm. What is taken stays, and so do the visual pivots. Original positions.

    Unlike the authors' code it takes batches, padding and several images (text behind the last one counts); where too
    little text follows, text in front of the images serves as pivots too.

    Parameters:
        k: 0-based layer in front of which tokens leave, at least 1.
        max_tokens: tokens the pivots take together, rounded down to a multiple of their number; the visual pivots
            come on top (128 keeps 132).
        visual_pivots, text_pivots: how many of each.
        order: in which the pivots take their turn, which changes the result: "norm_desc" (visual, then text pivots,
            each by falling norm), "index_asc" (by place in the prompt), or "cpython_set" (as CPython 3 iterates over a
            set of their places, which is what the authors' code does; costs a host synchronisation).
    """

    name: ClassVar[str] = "dart"
    label: ClassVar[str] = "DART"
    budget_parameter: ClassVar[str | None] = "max_tokens"

    k: int = 2
    max_tokens: int = 128
    visual_pivots: int = 4
    text_pivots: int = 4
    order: str = "norm_desc"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=1)
        checks.whole_number("max_tokens", self.max_tokens)
        checks.whole_number("visual_pivots", self.visual_pivots, minimum=1)
        checks.whole_number("text_pivots", self.text_pivots)
        checks.one_of("order", self.order, ORDERS)

    @property
    def _each(self) -> int:
        return self.max_tokens // (self.visual_pivots + self.text_pivots)

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.k >= num_layers:
            raise ValueError(f"k={self.k} is not in front of any of the {num_layers} decoder layers: lower k")
        kept = self.visual_pivots + self._each * (self.visual_pivots + self.text_pivots)
        if kept > num_visual:
            raise ValueError(
                f"max_tokens={self.max_tokens} and {self.visual_pivots} visual pivots keep {kept} of {num_visual} "
                "visual tokens: lower max_tokens"
            )
        return {self.k: kept}

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        visual_BS = seen.visual_BS
        visual_pivots_BV, text_pivots_BT = self._pivots(seen)
        pivots_BP = self._in_order(torch.cat([visual_pivots_BV, text_pivots_BT], dim=1), seen)
        unit_BSD = torch.nn.functional.normalize(seen.family.language_model.norm(seen.hidden_BSD).float(), dim=-1)
        distance_BPS = -take_tokens(unit_BSD, pivots_BP) @ unit_BSD.mT
        kept_BS = torch.zeros_like(visual_BS).scatter(1, visual_pivots_BV, True)
        for pivot in range(pivots_BP.shape[1]):
            free_BS = visual_BS & ~kept_BS
            taken_BE = rank(distance_BPS[:, pivot].masked_fill(~free_BS, float("-inf")))[:, : self._each]
            kept_BS = kept_BS.scatter(1, taken_BE, True)
        return Choice(kept_BS | ~visual_BS, [int(count) for count in counts if count is not None])

    def _pivots(self, seen: ObservedLayer) -> tuple[Tensor, Tensor]:
        """Places `[B, visual_pivots]` and `[B, text_pivots]` by falling norm."""
        if min(seen.tokens.text) < self.text_pivots:
            raise ValueError(f"a prompt has fewer than {self.text_pivots} text tokens: lower text_pivots")
        if seen.previous is None:
            raise RuntimeError("no layer has run in front of layer 0: the pivots need the keys of one")
        norm_BS = seen.previous.keys().float().abs().sum(dim=(1, 3))
        ranked_BS = rank(norm_BS.masked_fill(~seen.visual_BS, float("-inf")))
        text_BS = rank(norm_BS.masked_fill(~seen.tokens.text_BS, float("-inf")))
        behind_BS = seen.visual_BS.flip(1).cumsum(dim=1).flip(1) == 0
        behind_BS = behind_BS.gather(1, text_BS) & seen.tokens.text_BS.gather(1, text_BS)
        text_BS = text_BS.gather(1, (~behind_BS).to(torch.uint8).argsort(dim=1, stable=True))
        return ranked_BS[:, : self.visual_pivots], text_BS[:, : self.text_pivots]

    def _in_order(self, pivots_BP: Tensor, seen: ObservedLayer) -> Tensor:
        if self.order == "index_asc":
            return pivots_BP.sort(dim=1).values
        if self.order == "norm_desc":
            return pivots_BP
        padding_B1 = (~seen.tokens.mask_BS).sum(dim=1, keepdim=True)
        rows = [list(set(row)) for row in (pivots_BP - padding_B1).tolist()]
        return torch.stack([upload(row, pivots_BP.device) for row in rows]) + padding_B1

    def choosing_flops(self, sizes: Sizes) -> int:
        return 2 * (self.visual_pivots + self.text_pivots) * (sizes.visual_tokens + sizes.text_tokens) * sizes.hidden
