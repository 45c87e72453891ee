"""LLaVA-PruMerge+: PruMerge with evenly spaced tokens besides the outliers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.methods.prumerge import PruMerge


@dataclass
class PruMergePlus(PruMerge):
    """Shang et al., arXiv 2403.15388, section 3.4: `PruMerge`, which see, that also keeps every so-many-th token.

    Adaptive: with a share r of outliers, tokens 0, s, 2s, ... with s = int(int(1 / r) / 3), at least 1. Fixed: with
    s = int(1 / ratio), every s-th token from int(s / 2) on, and int(N * ratio) others by their attention. With `keep`,
    half of the tokens are spaced evenly. Spaced tokens enter behind the others, in raster order.

    A token that is both is taken once; in the authors' fixed variant the next by attention then takes its place, so
    that the number is the same for every image (their code keeps it twice).
    """

    name: ClassVar[str] = "prumerge_plus"
    label: ClassVar[str] = "PruMerge+"

    def plan(self, num_visual: int) -> tuple[int, Sequence[int]]:
        if self.ratio is not None:
            step = int(1 / self.ratio)
            return int(num_visual * self.ratio), range(step // 2, num_visual - 1, step)
        kept = (self.keep or 0) - 1  # besides the extra token
        spaced = kept // 2
        return kept - spaced, [(2 * place + 1) * num_visual // (2 * spaced) for place in range(spaced)]

    def sample(self, share_B1: Tensor, num_visual: int) -> Tensor:
        step_B1 = ((1 / share_B1).long() // 3).clamp(min=1)
        place_N = torch.arange(num_visual, device=share_B1.device)
        return (place_N % step_B1 == 0) & (place_N < num_visual - 1)
