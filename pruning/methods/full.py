"""The full model: nothing is pruned."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing.base import PerImage, Role
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes


@dataclass
class Full(PerImage):
    """Keeps every visual token; outputs equal the unmodified model's bit for bit."""

    name: ClassVar[str] = "full"
    label: ClassVar[str] = "Full model"
    role: ClassVar[Role] = "reference"

    def count(self, num_visual: int) -> int:
        return num_visual

    def select(self, seen: Observed) -> Tensor:
        return torch.arange(seen.num_visual, device=seen.device).expand(seen.num_images, -1)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0
