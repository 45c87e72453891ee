"""VisionZip: dominant tokens stay, the others are merged into a few contextual ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks, costs
from pruning.choosing.base import BeforeLLM
from pruning.choosing.merging import in_prompt, pick_rows, similarity, wide
from pruning.choosing.selection import stable_top_k
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

DEFAULT_KEEP = 64
# The authors' settings: 54 + 10, 108 + 20, 162 + 30 and 27 + 5 all merge 5 of 32 tokens.
CONTEXTUAL_SHARE = (5, 32)


@dataclass
class VisionZip(BeforeLLM):
    """Yang et al., arXiv 2412.04467, section 3.

    Dominant tokens have the highest attention of [CLS] (sum over heads) in the vision layer whose features the language
    model gets; [CLS] itself is the first of them. Of the others, evenly spaced ones are targets, and every remaining
    one joins the target with the most similar attention key (mean over heads); a contextual token is its target plus
    the mean of what joined it. They enter as [CLS], dominant tokens in raster order, contextual ones; positions are
    re-packed.

    A tower without [CLS] has `dominant` patches instead, ranked by the mean attention received. Qwen's merger takes
    patches in fours, so what is merged there are the projected tokens, and every token stays at its own position.

    Parameters:
        keep: tokens of every image, split as in the authors' settings (5 of 32 are contextual); 64 by default.
        dominant, contextual: the paper's parameters instead, both; dominant counts [CLS].
    """

    name: ClassVar[str] = "visionzip"
    label: ClassVar[str] = "VisionZip"
    budget_parameter: ClassVar[str | None] = "keep"

    keep: int | None = None
    dominant: int | None = None
    contextual: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.dominant is None) != (self.contextual is None) or None not in (self.keep, self.dominant):
            raise ValueError("give either keep, or both dominant and contextual")
        for name, minimum in (("keep", 1), ("dominant", 1), ("contextual", 0)):
            if (value := getattr(self, name)) is not None:
                checks.whole_number(name, value, minimum=minimum)

    @property
    def _split(self) -> tuple[int, int]:
        """Dominant and contextual tokens."""
        if self.dominant is not None and self.contextual is not None:
            return self.dominant, self.contextual
        keep = DEFAULT_KEEP if self.keep is None else self.keep
        contextual = keep * CONTEXTUAL_SHARE[0] // CONTEXTUAL_SHARE[1]
        return keep - contextual, contextual

    def count(self, num_visual: int) -> int:
        if sum(self._split) > num_visual:
            raise ValueError(f"{sum(self._split)} tokens are above the {num_visual} of an image: lower keep")
        return sum(self._split)

    def select(self, seen: Observed) -> MergedTokens:
        dominant, contextual = self._split
        cls_BC = seen.cls_features_BC
        if cls_BC is not None and not seen.repacks:
            raise ValueError("visionzip keeps [CLS], which has no place in the image: leave out positions='original'")
        patches = dominant if cls_BC is None else dominant - 1
        dominant_BK = stable_top_k(seen.cls_attention_BHN.sum(dim=1), patches)
        targets_BT, merged_BTC, members_BTN = merge_contextual(
            seen.mergeable_BNC, seen.head_keys_BNC, dominant_BK, contextual
        )
        dominant_BKN = dominant_BK[..., None] == torch.arange(seen.num_visual, device=seen.device)

        tokens = [pick_rows(seen.projected_BND, dominant_BK), seen.project(merged_BTC)]
        places, numbers = [dominant_BK, targets_BT], [dominant_BK, torch.full_like(targets_BT, -1)]
        members = [dominant_BKN, members_BTN]
        if cls_BC is not None:
            nothing_B1 = torch.full_like(seen.slots_BN[:, :1], -1)
            tokens, places, numbers, members = (
                [seen.project(cls_BC[:, None]), *tokens],
                [nothing_B1, *places],
                [nothing_B1, *numbers],
                [members_BTN.new_zeros(seen.num_images, 1, seen.num_visual), *members],
            )
        return in_prompt(
            seen,
            torch.cat(tokens, dim=1),
            torch.cat(places, dim=1),
            torch.cat(numbers, dim=1),
            torch.cat(members, dim=1),
        )

    def choosing_flops(self, sizes: Sizes) -> int:
        dominant, contextual = self._split
        cls = sizes.has_cls
        rest = sizes.visual_tokens - dominant + cls
        key_width = sizes.vision_width // sizes.vision_heads
        comparing = 2 * rest * contextual * key_width
        averaging = 2 * rest * contextual * costs.mergeable_width(sizes)
        return costs.attention(sizes) + comparing + averaging + costs.projection(sizes, contextual + cls)


def merge_contextual(
    features_BNC: Tensor, keys_BNE: Tensor, dominant_BK: Tensor, contextual: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Merge all tokens but the dominant ones around evenly spaced targets.

    Args:
        features_BNC: what is averaged.
        keys_BNE: what is compared, by cosine.
        dominant_BK: int64, the tokens to leave out.
        contextual: number of targets, at most N - K.

    Returns:
        The targets, int64 `[B, contextual]`, the merged tokens `[B, contextual, C]` in at least float32, and what each
        is made of, bool `[B, contextual, N]`.
    """
    batch, count = features_BNC.shape[:2]
    taken_BN = torch.zeros(batch, count, dtype=torch.bool, device=features_BNC.device).scatter(1, dominant_BK, True)
    rest_BR = taken_BN.to(torch.uint8).argsort(dim=1, stable=True)[:, : count - dominant_BK.shape[1]]
    if contextual == 0:
        return rest_BR[:, :0], wide(features_BNC[:, :0]), taken_BN[:, None][:, :0]
    step = max(1, rest_BR.shape[1] // contextual)
    aims = slice(0, contextual * step, step)
    keys_BRE = pick_rows(keys_BNE, rest_BR)
    joins_BR = similarity(keys_BRE, keys_BRE[:, aims]).argmax(dim=2)
    joined_BTR = joins_BR[:, None] == torch.arange(contextual, device=rest_BR.device)[:, None]
    joined_BTR[:, :, aims] = False  # a target joins none, not even itself
    rest_BRC = wide(pick_rows(features_BNC, rest_BR))
    weights_BTR = joined_BTR.to(rest_BRC.dtype)
    weights_BTR = weights_BTR / weights_BTR.sum(dim=2, keepdim=True).clamp(min=1)
    members_BTN = torch.zeros_like(taken_BN)[:, None].repeat(1, contextual, 1)
    members_BTN = members_BTN.scatter(2, rest_BR[:, None].expand_as(joined_BTR), joined_BTR)
    members_BTN = members_BTN.scatter(2, rest_BR[:, aims, None], True)
    return rest_BR[:, aims], rest_BRC[:, aims] + weights_BTR @ rest_BRC, members_BTN
