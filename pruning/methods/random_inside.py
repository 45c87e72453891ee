"""Random tokens inside the language model: the bar for every method that prunes there."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks
from pruning.choosing.base import Role
from pruning.engine.before import place_images
from pruning.engine.seen import ObservedLayer
from pruning.engine.tokens import upload
from pruning.methods.fastv import FastV
from pruning.methods.random import random_numbers
from pruning.models.sizes import Sizes


@dataclass
class RandomInside(FastV):
    """FastV's one cut, where and as large, of tokens drawn uniformly without replacement, anew for every sample.

    What a method inside the language model gains over it, it gains by choosing; what both gain over `random`, which
    leaves before the first layer, they gain by waiting. The draw depends on the seed and the pixels of the sample's
    images alone: it is the same in any batch and on any device.

    Parameters:
        k: 0-based layer in front of which tokens leave, at least 1.
        r: fraction of the visual tokens that leaves.
        rounding: of the number kept, as FastV's.
        seed: 0 or above.
    """

    name: ClassVar[str] = "random_inside"
    label: ClassVar[str] = "Random inside the LLM"
    role: ClassVar[Role] = "reference"

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("seed", self.seed)

    def score(self, seen: ObservedLayer) -> Tensor:
        samples = seen.full.visual[:: seen.copies]
        places = place_images([len(image.index_N) for image in seen.vision.images], samples)
        device = seen.tokens.numbers_BS.device
        keys_I = seen.vision.keys_I.to(device)
        keys_B = torch.zeros(len(samples), dtype=torch.long, device=device)
        # Sums, so that any number of images makes one number, which depends on their pixels and on nothing else.
        keys_B = keys_B.index_add(0, upload([row for row, _ in places], device), keys_I[: len(places)])
        scores_BS = random_numbers(keys_B.repeat_interleave(seen.copies), seen.tokens.numbers_BS, self.seed)
        return scores_BS.double()

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0
