"""What a method did at the latest prefill."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pruning.engine.tokens import Choice, Members, Tokens


class Record:
    """What happened at the latest prefill inside a `with method(model) as record:` context.

    Nothing is copied from the device until it is read. Before the first prefill the lists are empty.
    """

    def __init__(self) -> None:
        self._layers: list[Tokens] = []
        self._copies = 1
        self._members: Sequence[Members] = ()
        self._merges: list[tuple[Tokens, Choice]] = []
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def visual_tokens(self) -> list[list[int]]:
        """Visual tokens entering each layer: one list a sample (beams of a sample count once), one entry a layer."""
        rows = len(self._layers[0].visual) if self._layers else 0
        return [[tokens.visual[row] for tokens in self._layers] for row in range(0, rows, self._copies)]

    @property
    def kept(self) -> list[list[Tensor]]:
        """Visual tokens entering each layer, `kept[sample][layer]`: int64 numbers among the sample's visual tokens.

        They are in the order of the sequence. Tokens that a method made by merging have numbers from the sample's
        number of visual tokens on.
        """
        rows = len(self._layers[0].visual) if self._layers else 0
        numbers = {tokens: tokens.numbers_BS.cpu() for tokens in self._layers}
        split = {tokens: [row_S[row_S >= 0] for row_S in numbers_BS] for tokens, numbers_BS in numbers.items()}
        return [[split[tokens][row] for tokens in self._layers] for row in range(0, rows, self._copies)]

    @property
    def merged(self) -> list[dict[int, list[int]]]:
        """What each token is made of that a method made by merging, one dictionary a sample.

        `merged[sample][number]` lists the numbers of the tokens in it, those made by an earlier merge among them; a
        [CLS] that VisionZip lets in is made of none. Tokens that stay as they are do not appear.
        """
        rows = range(0, len(self._layers[0].visual) if self._layers else 0, self._copies)
        merged: list[dict[int, list[int]]] = [{} for _ in rows]
        for members in self._members:
            numbers_GT, members_GTN = members.numbers_GT.tolist(), members.members_GTN.cpu()
            for image, (sample_number, start) in enumerate(zip(members.samples, members.starts, strict=True)):
                for number, members_N in zip(numbers_GT[image], members_GTN[image], strict=True):
                    own = (members_N.nonzero()[:, 0] + start).tolist()
                    if own != [number]:
                        merged[sample_number][number] = own
        for tokens, choice in self._merges:
            assert choice.merge is not None and choice.numbers_BS is not None
            taken_BK = choice.numbers_BS.gather(1, choice.merge.slots_BK).cpu()
            of_BKS, numbers_BS = (choice.merge.weights_BKS > 0).cpu(), tokens.numbers_BS.cpu()
            for sample, row in zip(merged, rows, strict=True):
                for number, of_S in zip(taken_BK[row].tolist(), of_BKS[row], strict=True):
                    if number >= 0:
                        sample[number] = numbers_BS[row, of_S].tolist()
        return merged

    @property
    def seconds(self) -> float:
        """Time spent choosing tokens; on a GPU by the device's own clock, and reading it waits for the device."""
        for start, end in self._events:
            end.synchronize()
            self._seconds += start.elapsed_time(end) / 1000
        self._events.clear()
        return self._seconds

    def begin(self, layers: Sequence[Tokens], copies: int) -> None:
        """Start anew for a prefill; `copies` rows of the batch (beams) stand for one sample."""
        self._layers, self._copies = list(layers), copies
        self._members = ()
        self._merges.clear()
        self._seconds = 0.0
        self._events.clear()

    def prune_from(self, layer: int, tokens: Tokens) -> None:
        """From this layer on these tokens enter."""
        self._layers[layer:] = [tokens] * (len(self._layers) - layer)

    def note_members(self, members: Sequence[Members]) -> None:
        """These tokens were made by merging before the language model."""
        self._members = members

    def merge(self, tokens: Tokens, choice: Choice) -> None:
        """Of these tokens some were merged, as the choice says."""
        self._merges.append((tokens, choice))

    @contextmanager
    def choosing(self, device: torch.device) -> Iterator[None]:
        """Count the time of the block as time spent choosing."""
        if device.type == "cuda":
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            yield
            end.record()
            self._events.append((start, end))
        else:
            begun = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - begun
