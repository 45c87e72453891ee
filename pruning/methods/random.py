"""Random tokens: the bar that every method has to clear."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import KeepPerImage, Role
from pruning.choosing.selection import stable_top_k
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes


@dataclass
class Random(KeepPerImage):
    """Tokens drawn uniformly without replacement, anew for every image.

    The draw depends on the seed and the image's pixels alone: it is the same in any batch and on any device.

    Parameters:
        keep: tokens kept of every image.
        seed: 0 or above.
    """

    name: ClassVar[str] = "random"
    label: ClassVar[str] = "Random"
    role: ClassVar[Role] = "reference"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("seed", self.seed)

    def select(self, seen: Observed) -> Tensor:
        return stable_top_k(random_scores(seen, self.seed), self.keep)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


def random_scores(seen: Observed, seed: int) -> Tensor:
    """Independent uniform int64 scores `[B, N]` by seed, image and index."""
    index_N = torch.arange(seen.num_visual, device=seen.device)
    return random_numbers(seen.keys_B, index_N.expand(seen.num_images, -1), seed)


def random_numbers(keys_B: Tensor, index_BN: Tensor, seed: int) -> Tensor:
    """Independent uniform int64 numbers `[B, N]` by seed, key and index (SplitMix64, Steele et al. 2014)."""
    state_B = _scramble(keys_B + _scramble(torch.tensor(seed, device=keys_B.device)))
    return _scramble(state_B[:, None] + (index_BN + 1) * -0x61C8864680B583EB)


def _scramble(x: Tensor) -> Tensor:
    """SplitMix64's output function; int64 arithmetic wraps around like the unsigned arithmetic it is defined in."""
    x = (x ^ _shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ _shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    # Logical shift: int64's own fills in the sign.
    return (x >> bits) & ((1 << (64 - bits)) - 1)
