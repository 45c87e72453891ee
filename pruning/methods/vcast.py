"""V-CAST: frames where a video turns give more tokens, and of each frame its outliers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize, pad

from pruning.choosing import checks
from pruning.choosing.merging import wide
from pruning.choosing.quotas import hand_on
from pruning.choosing.video import VideoMethod, by_frame, first_of_frames, indices
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

EPSILON = 1e-6


@dataclass
class VCast(VideoMethod):
    """arXiv 2603.27650: curvature of the path that the frames take, and coordinates that are kept.

    The path goes through the frames' mean tokens at unit length; its curvature at a frame is one minus the cosine of
    the steps to it and from it, 1 at both ends. The tokens are shared out among the frames by a softmax of it, in whole
    numbers; what is left over goes to the frame of the largest fraction until that is full, then to the next, as in the
    authors' code. Of a frame those stay that differ most from its mean (one minus cosine) and are longest (norm, scaled
    to 0..1 in the frame). Positions are the original ones. The authors' model is Qwen3-VL.

    Parameters:
        ratio: share of the tokens that stays: round(ratio * N), half to even, and at least `min_per_frame` a frame.
        min_per_frame: tokens that every frame gives at least.
        temperature: of the softmax over frames.
    """

    name: ClassVar[str] = "vcast"
    label: ClassVar[str] = "V-CAST"
    budget_parameter: ClassVar[str | None] = "ratio"

    ratio: float = 0.25
    min_per_frame: int = 1
    temperature: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("ratio", self.ratio)
        checks.whole_number("min_per_frame", self.min_per_frame)
        checks.above_zero("temperature", self.temperature)

    def count(self, num_visual: int) -> int:
        """By the ratio alone: the number of frames, each of which gives some, is not known here."""
        return max(1, round(num_visual * self.ratio))

    def select_frames(self, seen: Observed, frames: int) -> Tensor:
        kept_BFM, keep = self.choose(by_frame(seen.projected_BND, frames))
        return indices(kept_BFM.flatten(1), keep)

    def choose(self, tokens_BFMD: Tensor) -> tuple[Tensor, int]:
        """What stays, bool `[B, F, M]`, and how many tokens that are."""
        tokens_BFMD = wide(tokens_BFMD)
        frames, size = tokens_BFMD.shape[1:3]
        least = min(self.min_per_frame, size)
        keep = max(self.count(frames * size), frames * least)
        mean_BFD = normalize(tokens_BFMD.mean(dim=2), dim=-1, eps=EPSILON)
        share_BF = (curvature(mean_BFD) / self.temperature).softmax(dim=1)
        counts_BF = shared_out(share_BF, keep, least, size)
        apart_BFM = 1 - cosine_similarity(tokens_BFMD, mean_BFD[:, :, None], dim=-1, eps=EPSILON)
        norm_BFM = tokens_BFMD.norm(dim=-1)
        low_BF1, high_BF1 = norm_BFM.amin(dim=2, keepdim=True), norm_BFM.amax(dim=2, keepdim=True)
        return first_of_frames(apart_BFM + (norm_BFM - low_BF1) / (high_BF1 - low_BF1 + EPSILON), counts_BF), keep

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0  # elementwise


def curvature(mean_BFD: Tensor) -> Tensor:
    """Of the path through the frames, `[B, F]`."""
    step_BFD = mean_BFD.diff(dim=1)
    inner_BF = 1 - cosine_similarity(step_BFD[:, :-1], step_BFD[:, 1:], dim=-1, eps=EPSILON)
    return pad(inner_BF, (1, 1), value=1.0) if mean_BFD.shape[1] > 1 else torch.ones_like(mean_BFD[..., 0])


def shared_out(share_BF: Tensor, keep: int, least: int, most: int) -> Tensor:
    """Tokens of every frame, int64 `[B, F]`, `keep` together: `least` to `most` a frame, the rest by share."""
    frames = share_BF.shape[1]
    exact_BF = share_BF / share_BF.sum(dim=1, keepdim=True) * (keep - frames * least)
    counts_BF = (least + exact_BF.floor().long()).clamp(max=most)
    fraction_BF = (exact_BF - exact_BF.floor()).masked_fill(counts_BF >= most, -1.0)
    return hand_on(counts_BF, fraction_BF, torch.full_like(counts_BF, most), keep)
