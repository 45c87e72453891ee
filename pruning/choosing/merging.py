"""What merging methods share: putting merged tokens into the prompt, and the bipartite matching of ToMe."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruning.choosing.selection import rank
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.engine.tokens import upload


def in_prompt(
    seen: Observed,
    tokens_BTD: Tensor,
    places_BT: Tensor,
    numbers_BT: Tensor,
    members_BTN: Tensor,
    counts: Sequence[int] | None = None,
) -> MergedTokens:
    """Merged tokens as the engine takes them.

    Where positions are numbered anew, the tokens enter in the order given. Where they keep their positions (mRoPE),
    they enter in the order of their places, so that none leaves its own.

    Args:
        tokens_BTD: in the width of the language model.
        places_BT: int64, the visual token at whose place each one stands; negative for those with no place, which only
            towers without mRoPE have.
        numbers_BT: int64, the visual token each one stands for in the record, -1 for one made of several.
        members_BTN: bool, the visual tokens that each one is made of.
        counts: tokens of every image where they differ; behind them the last one is repeated.
    """
    if not seen.repacks:
        slots_BT, order_BT = places_BT.sort(dim=1, stable=True)
        tokens_BTD = torch.take_along_dim(tokens_BTD, order_BT[..., None], dim=1)
        members_BTN = pick_rows(members_BTN, order_BT)
        return MergedTokens(tokens_BTD, slots_BT, numbers_BT.gather(1, order_BT), members_BTN, counts)
    slots_BT = torch.arange(places_BT.shape[1], device=places_BT.device).expand_as(places_BT)
    if counts is not None:
        slots_BT = slots_BT.minimum(upload(counts, slots_BT.device)[:, None] - 1)
    return MergedTokens(tokens_BTD, slots_BT, numbers_BT, members_BTN, counts)


def wide(values: Tensor) -> Tensor:
    """The values in float32, or as they are if float64: what averages and similarities are computed in."""
    return values if values.dtype == torch.float64 else values.float()


def pick_rows(values_BNC: Tensor, index_BK: Tensor) -> Tensor:
    """Rows `[B, K, C]` of `[B, N, C]`."""
    return torch.take_along_dim(values_BNC, index_BK[..., None], dim=1)


def similarity(values_BKC: Tensor, others_BNC: Tensor) -> Tensor:
    """Cosine of every pair, `[B, K, N]`, in float32 or float64."""
    return normalize(wide(values_BKC), dim=-1) @ normalize(wide(others_BNC), dim=-1).mT


@dataclass(frozen=True)
class Matching:
    """One round of bipartite soft matching over S tokens: R of the even ones each join an odd one.

    What is left are the other even tokens and then the odd ones, both in their order.

    Attributes:
        apart_BU: int64, which of the even tokens stay apart, ascending.
        joining_BR: int64, which of them join; joined_BR: int64, which of the odd tokens each joins.
    """

    apart_BU: Tensor
    joining_BR: Tensor
    joined_BR: Tensor

    def merge(self, values_BSC: Tensor, sizes_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Means weighted by size, `[B, S - R, C]`, and the new sizes `[B, S - R]`."""
        even_BC, odd_BC = values_BSC[:, 0::2], values_BSC[:, 1::2]
        even_sizes, odd_sizes = sizes_BS[:, 0::2], sizes_BS[:, 1::2]
        places = torch.arange(odd_BC.shape[1], device=values_BSC.device)
        weights = (self.joined_BR[:, None] == places[:, None]) * even_sizes.gather(1, self.joining_BR)[:, None]
        sizes = odd_sizes + weights.sum(dim=2)
        means = (odd_BC * odd_sizes[..., None] + weights @ pick_rows(even_BC, self.joining_BR)) / sizes[..., None]
        return (
            torch.cat([pick_rows(even_BC, self.apart_BU), means], dim=1),
            torch.cat([even_sizes.gather(1, self.apart_BU), sizes], dim=1),
        )

    def follow(self, owners_BN: Tensor) -> Tensor:
        """Where the tokens that were at these places are after the round."""
        apart, joined = self.apart_BU.shape[1], self.joined_BR.shape[1]
        even = owners_BN.new_empty(len(owners_BN), apart + joined)
        even = even.scatter(1, self.apart_BU, torch.arange(apart, device=even.device).expand_as(self.apart_BU))
        even = even.scatter(1, self.joining_BR, apart + self.joined_BR)
        odd_owners = apart + owners_BN // 2
        return torch.where(owners_BN % 2 == 1, odd_owners, even.gather(1, owners_BN // 2))


def soft_matching(keys_BSE: Tensor, merges: int, *, cls: bool = False) -> Matching:
    """ToMe's bipartite soft matching (arXiv 2210.09461, section 3): the `merges` even tokens most like an odd one.

    Args:
        keys_BSE: what is compared, by cosine.
        merges: R, at most `most_merges`.
        cls: whether token 0 is a [CLS] that must not join another.
    """
    alike = similarity(keys_BSE[:, 0::2], keys_BSE[:, 1::2])
    best, joined = alike.max(dim=2)
    if cls:
        best[:, 0] = float("-inf")
    order = rank(best)
    joining_BR = order[:, :merges]
    return Matching(order[:, merges:].sort(dim=1).values, joining_BR, joined.gather(1, joining_BR))


def most_merges(tokens: int, *, cls: bool = False) -> int:
    """Merges that one round allows."""
    return (tokens - cls) // 2


class Clusters:
    """Tokens under repeated soft matching.

    Attributes:
        sizes_BS: float, how many tokens each one stands for.
        owners_BN: int64, for every token there was, the one it is in now.
    """

    def __init__(self, values_BNC: Tensor, *, cls: bool = False) -> None:
        batch, count = values_BNC.shape[:2]
        dtype = torch.float64 if values_BNC.dtype == torch.float64 else torch.float32
        self.cls = cls
        self.sizes_BS = torch.ones(batch, count, dtype=dtype, device=values_BNC.device)
        self.owners_BN = torch.arange(count, device=values_BNC.device).expand(batch, -1)

    def merge(self, values_BSC: Tensor, keys_BSE: Tensor, merges: int) -> tuple[Tensor, Tensor]:
        """Merge until `merges` fewer tokens are left, in as few rounds as possible; the merged values and keys."""
        dtype, values_BSC, keys_BSE = values_BSC.dtype, wide(values_BSC), wide(keys_BSE)
        while merges > 0:
            now = min(merges, most_merges(values_BSC.shape[1], cls=self.cls))
            matching = soft_matching(keys_BSE, now, cls=self.cls)
            keys_BSE, _ = matching.merge(keys_BSE, self.sizes_BS)
            values_BSC, self.sizes_BS = matching.merge(values_BSC, self.sizes_BS)
            self.owners_BN = matching.follow(self.owners_BN)
            merges -= now
        return values_BSC.to(dtype), keys_BSE
