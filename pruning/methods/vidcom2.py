"""VidCom2: distinctive frames of a video give more tokens, and of each frame its outliers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pruning.choosing import checks
from pruning.choosing.merging import wide
from pruning.choosing.selection import rank, stable_top_k
from pruning.choosing.video import VideoMethod, by_frame, first_of_frames, indices
from pruning.engine.contract import Selected
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

# Gaussian kernels of these variances are summed.
VARIANCES = tuple(2.0**exponent for exponent in range(-3, 2))


@dataclass
class VidCom2(VideoMethod):
    """Liu et al., arXiv 2505.14454: frames by uniqueness, then tokens by outlierness.

    Tokens are compared in the half of their channels that varies least over the video, at unit length, by a sum of
    Gaussian kernels: with the mean of the video and with that of their frame. A frame whose tokens are least like the
    video gives more, ratio * (1 + p - mean p) of them, p a softmax over frames; of each frame those stay that are least
    like video and frame. Positions are the original ones.

    Rounding frame by frame misses the total by a token or so, as in the authors' code; `exact` fills or trims it by the
    same scores over all frames.

    Parameters:
        ratio: share of the tokens that stays; .25 and .15 are published.
        temperature: of the softmax over frames.
        exact: round(ratio * N) tokens stay, half to even, at least one.
    """

    name: ClassVar[str] = "vidcom2"
    label: ClassVar[str] = "VidCom2"
    budget_parameter: ClassVar[str | None] = "ratio"

    ratio: float = 0.25
    temperature: float = 0.01
    exact: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("ratio", self.ratio)
        checks.above_zero("temperature", self.temperature)

    def count(self, num_visual: int) -> int | None:
        return max(1, round(self.ratio * num_visual)) if self.exact else None

    def select_frames(self, seen: Observed, frames: int) -> Tensor | Selected:
        kept_BFM, likeness_BFM = self.choose(by_frame(seen.projected_BND, frames))
        keep = self.count(seen.num_visual)
        if keep is not None:  # what was chosen comes first
            ahead = 2 * len(VARIANCES) + 1  # above any likeness
            return stable_top_k((kept_BFM * ahead - likeness_BFM).flatten(1), keep)
        counts = kept_BFM.sum(dim=(1, 2)).tolist()
        return Selected(indices(kept_BFM.flatten(1), max(counts)), counts)

    def choose(self, tokens_BFMD: Tensor) -> tuple[Tensor, Tensor]:
        """What stays, bool `[B, F, M]`, and how much every token is like video and frame together."""
        tokens_BFMD = wide(tokens_BFMD)
        spread_BD = tokens_BFMD.flatten(1, 2).var(dim=1, correction=0)
        channels_BE = rank(-spread_BD)[:, : spread_BD.shape[1] // 2]
        unit_BFME = normalize(
            tokens_BFMD.gather(3, channels_BE[:, None, None].expand(-1, *tokens_BFMD.shape[1:3], -1)), dim=-1
        )
        of_video_BFM = likeness(unit_BFME, unit_BFME.mean(dim=(1, 2), keepdim=True))
        of_frame_BFM = likeness(unit_BFME, unit_BFME.mean(dim=2, keepdim=True))
        apart_BF = -of_video_BFM.mean(dim=2)
        p_BF = ((apart_BF - apart_BF.amax(dim=1, keepdim=True)) / self.temperature).softmax(dim=1)
        share_BF = (self.ratio * (1 + p_BF - p_BF.mean(dim=1, keepdim=True))).clamp(max=1)
        counts_BF = (share_BF * tokens_BFMD.shape[2]).round().long().clamp(min=1)
        likeness_BFM = of_video_BFM + of_frame_BFM
        return first_of_frames(-likeness_BFM, counts_BF), likeness_BFM

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0  # elementwise


def likeness(unit_BFME: Tensor, centre: Tensor) -> Tensor:
    """Sum of Gaussian kernels of the distance to a centre, `[B, F, M]`."""
    squared_BFM = (unit_BFME - centre).square().sum(dim=-1)
    return torch.stack([(-squared_BFM / (2 * variance)).exp() for variance in VARIANCES]).sum(dim=0)
