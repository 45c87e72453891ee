"""Which tokens of a batch enter a run of decoder layers, and how that set shrinks.

Shape suffixes here and in the engine: B rows of the batch, S tokens now in a row, L tokens of the prompt, D hidden
width, A position axes (1, or 3 with mRoPE).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

# Behind every sort key. `pad` passes values through floating point: a power of two stays what it is.
LAST = 2**62


@dataclass(frozen=True)
class MergeInside:
    """Merging inside the language model: averages of tokens, K a row, each in the place of one of its tokens.

    A row with fewer repeats one of its own.

    Attributes:
        slots_BK: int64 places that the averages take.
        weights_BKS: float32 share of every token in each average; they sum to 1.
    """

    slots_BK: Tensor
    weights_BKS: Tensor

    def apply(self, hidden_BSD: Tensor) -> Tensor:
        """The hidden states with the averages, formed in float32, in their places."""
        averages_BKD = (self.weights_BKS @ hidden_BSD.float()).to(hidden_BSD.dtype)
        return hidden_BSD.scatter(1, self.slots_BK[..., None].expand_as(averages_BKD), averages_BKD)


@dataclass(frozen=True)
class Members:
    """Merging before the language model, for the record: what tokens were made of, for G images of equal size.

    Attributes:
        samples: the sample of every image.
        starts: the number of its first visual token among those of the sample.
        numbers_GT: int64, the tokens' numbers in the record; an image with fewer than T repeats some.
        members_GTN: bool, the image's visual tokens that each one is made of.
    """

    samples: Sequence[int]
    starts: Sequence[int]
    numbers_GT: Tensor
    members_GTN: Tensor


@dataclass(frozen=True)
class Choice:
    """What a method decided about the tokens in front of a layer.

    Attributes:
        keep_BS: bool, the tokens that stay. Text and padding must be True; the engine drops padding itself.
        visual: visual tokens kept in every row, if known without asking the device; None costs one host sync.
        hidden_BSD: replacement for the hidden states of all S tokens. Inside the language model prefer `merge`, which
            is recorded, shared by beams and kept in decoding without a KV cache.
        merge: what is merged into which kept token, for methods that merge inside the language model.
        members: what was merged before it, for the record.
        order_BS: sort key of the kept tokens, for methods that move merged tokens; None keeps the order.
        numbers_BS: replacement for the tokens' numbers in the record, for methods that create merged tokens.
    """

    keep_BS: Tensor
    visual: Sequence[int] | None = None
    hidden_BSD: Tensor | None = None
    order_BS: Tensor | None = None
    numbers_BS: Tensor | None = None
    merge: MergeInside | None = None
    members: Sequence[Members] = ()

    def of_first_copies(self, copies: int) -> "Choice":
        """The choice of the first of every `copies` rows, for all of them."""

        def copied(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[::copies].repeat_interleave(copies, dim=0)

        keep_BS = self.keep_BS[::copies].repeat_interleave(copies, dim=0)
        merge = self.merge
        if merge is not None:
            merge = MergeInside(
                *(part[::copies].repeat_interleave(copies, dim=0) for part in (merge.slots_BK, merge.weights_BKS))
            )
        return replace(
            self, keep_BS=keep_BS, order_BS=copied(self.order_BS), numbers_BS=copied(self.numbers_BS), merge=merge
        )

    def without_last(self) -> "Choice":
        """The same choice without the last token of every row, in which nothing is merged."""
        return Choice(self.keep_BS[:, :-1], self.visual)

    def with_later(self, later: int) -> "Choice":
        """The same choice where every row has `later` more text tokens behind those that were chosen from."""
        if later == 0:
            return self
        order_BS, numbers_BS, merge = self.order_BS, self.numbers_BS, self.merge
        if order_BS is not None:  # equal keys keep their order
            order_BS = pad(order_BS, (0, later), value=LAST)
        if numbers_BS is not None:
            numbers_BS = pad(numbers_BS, (0, later), value=-1)
        if merge is not None:
            merge = MergeInside(merge.slots_BK, pad(merge.weights_BKS, (0, later)))
        return Choice(pad(self.keep_BS, (0, later), value=True), self.visual, None, order_BS, numbers_BS, merge)


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens that enter a run of decoder layers, left-padded.

    Attributes:
        numbers_BS: int64, a visual token's number among the visual tokens of its sample, -1 for text and padding.
        mask_BS: bool, False for padding.
        positions_ABS: int64 position ids.
        next_AB1: int64 position of the first decoded token.
        visual: visual tokens in every row.
        text: text tokens in every row, padding not counted.
    """

    numbers_BS: Tensor
    mask_BS: Tensor
    positions_ABS: Tensor
    next_AB1: Tensor
    visual: tuple[int, ...]
    text: tuple[int, ...]

    @property
    def visual_BS(self) -> Tensor:
        """bool, True for visual tokens."""
        return self.numbers_BS >= 0

    @property
    def text_BS(self) -> Tensor:
        """bool, True for text tokens; False for visual tokens and padding."""
        return self.mask_BS & (self.numbers_BS < 0)

    @property
    def length(self) -> int:
        return self.mask_BS.shape[1]

    @property
    def padded(self) -> bool:
        """Whether any row holds padding."""
        return any(visual + text != self.length for visual, text in zip(self.visual, self.text, strict=True))

    @property
    def last_B(self) -> Tensor:
        """int64 index of every row's last token that is not padding."""
        places_S = torch.arange(self.length, device=self.mask_BS.device)
        return (places_S * self.mask_BS).amax(dim=1)

    def with_one_more(self) -> "Tokens":
        """With a text token behind every row, at the position after that of the row's last token."""
        last_AB1 = self.positions_ABS.gather(2, self.last_B[None, :, None].expand(len(self.positions_ABS), -1, -1))
        return Tokens(
            pad(self.numbers_BS, (0, 1), value=-1),
            pad(self.mask_BS, (0, 1), value=True),
            torch.cat([self.positions_ABS, last_AB1 + 1], dim=2),
            self.next_AB1,
            self.visual,
            tuple(count + 1 for count in self.text),
        )

    def prune(self, choice: Choice, repack: bool) -> tuple["Tokens", Tensor]:
        """The tokens left after a choice and the int64 `[B, S']` places in the old row that they come from.

        Rows that keep fewer tokens are padded on the left, so that the last column stays the last token of every row.

        Args:
            choice: what stays.
            repack: number the positions anew from 0 instead of keeping the original ones.
        """
        keep_BS = choice.keep_BS & self.mask_BS
        numbers_BS = self.numbers_BS if choice.numbers_BS is None else choice.numbers_BS
        if choice.visual is None:
            visual = tuple((keep_BS & (numbers_BS >= 0)).sum(dim=1).tolist())
        else:
            visual = tuple(choice.visual)
        length = max(count + text for count, text in zip(visual, self.text, strict=True))
        places_S = torch.arange(self.length, device=keep_BS.device)
        key_BS = places_S.expand_as(keep_BS) if choice.order_BS is None else choice.order_BS
        # Dropped tokens sort to the left; where a row keeps fewer, some of them remain there as padding.
        key_BS = key_BS.masked_fill(~keep_BS, -1)
        order_BT = key_BS.argsort(dim=1, stable=True)[:, self.length - length :]
        mask_BT = keep_BS.gather(1, order_BT)
        numbers_BT = numbers_BS.gather(1, order_BT).masked_fill(~mask_BT, -1)
        if repack:
            positions_ABT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)[None]
            next_AB1 = mask_BT.sum(dim=1, keepdim=True)[None]
        else:
            positions_ABT = torch.take_along_dim(self.positions_ABS, order_BT[None], dim=2)
            next_AB1 = self.next_AB1
        return Tokens(numbers_BT, mask_BT, positions_ABT, next_AB1, visual, self.text), order_BT


def take_tokens(values_BSD: Tensor, order_BT: Tensor) -> Tensor:
    """Rows of `[B, S, D]` at the places `[B, T]`: `[B, T, D]`."""
    return values_BSD.gather(1, order_BT[..., None].expand(-1, -1, values_BSD.shape[-1]))


def upload(values: Sequence[int], device: torch.device) -> Tensor:
    """int64 `[len(values)]` on the device, without waiting for the work queued there."""
    values_N = torch.tensor(values, dtype=torch.long)
    return values_N.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values_N.to(device)
