"""EVS: the tokens of a video that change from one frame to the next."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import cosine_similarity, pad

from pruning.choosing import checks
from pruning.choosing.merging import wide
from pruning.choosing.selection import stable_top_k
from pruning.choosing.video import VideoMethod, by_frame
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

FIRST_FRAME = 255.0


@dataclass
class EVS(VideoMethod):
    """Bagrov et al., arXiv 2510.14624: efficient video sampling.

    A token's score is one minus its cosine with the token at the same place of the frame before; the first frame stays
    whole. Of the whole video the highest scores stay, at their own positions. This is the form in which it is served;
    the paper compares the pixels of patches.

    The text behind the video keeps its own positions too, as in transformers; vLLM counts on from the grid's width.

    Parameters:
        rate: share of the video's tokens that leaves. int(N * (1 - rate)) stay, and never fewer than one frame's.
    """

    name: ClassVar[str] = "evs"
    label: ClassVar[str] = "EVS"
    budget_parameter: ClassVar[str | None] = "rate"

    rate: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("rate", self.rate)

    def count(self, num_visual: int) -> int:
        """By the rate alone: the size of the first frame, below which no video falls, is not known here."""
        return int(num_visual * (1 - self.rate))

    def select_frames(self, seen: Observed, frames: int) -> Tensor:
        keep = max(seen.num_visual // frames, self.count(seen.num_visual))
        return stable_top_k(changes(by_frame(seen.projected_BND, frames)), keep)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0  # products of single pairs: elementwise


def changes(tokens_BFMD: Tensor) -> Tensor:
    """How much every token differs from the one before it in time, `[B, F * M]`."""
    tokens_BFMD = wide(tokens_BFMD)
    change_BFM = 1 - cosine_similarity(tokens_BFMD[:, 1:], tokens_BFMD[:, :-1], dim=-1)
    return pad(change_BFM, (0, 0, 1, 0), value=FIRST_FRAME).flatten(1)
