"""VScan: tokens by a local and a global scan of the image, the others merged into them, and one cut inside the LLM."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from pruning.choosing import checks, costs
from pruning.choosing.base import BeforeLLM, InsideLLM, Method, PerImage, Positions, Role
from pruning.choosing.merging import in_prompt, pick_rows, similarity, wide
from pruning.choosing.raster import layout
from pruning.choosing.selection import rank, stable_top_k
from pruning.engine.contract import MergedTokens
from pruning.engine.seen import Observed, ObservedLayer
from pruning.models.family import Family
from pruning.models.sizes import Sizes

# Side of a window, in visual tokens: the authors' for LLaVA's 24 x 24, and for Qwen.
WINDOW = {False: 6, True: 4}


@dataclass
class TwoScans(BeforeLLM):
    """The half of `VScan` before the language model; parameters are told there."""

    name: ClassVar[str] = "vscan"
    label: ClassVar[str] = "VScan"
    changes_tower: ClassVar[bool] = True

    keep: int = 96
    local_share: float = 0.5
    local_layer: int | None = None
    window: int | None = None
    exact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("keep", self.keep, minimum=1)
        checks.fraction("local_share", self.local_share)
        if self.local_layer is not None:
            checks.whole_number("local_layer", self.local_layer)
        if self.window is not None:
            checks.whole_number("window", self.window, minimum=1)

    def attention_blocks(self, family: Family) -> Sequence[int]:
        if self.local_layer is not None:
            return (self.local_layer,)
        config = family.model.config
        aim = family.vision_sizes(config.vision_config)[2] * 5 / 24
        return (min(family.full_attention_blocks(config), key=lambda block: abs(block - aim)),)

    def count(self, num_visual: int) -> int | None:
        checks.keep_of(self.keep, num_visual)
        return self.keep if self.exact else None

    def select(self, seen: Observed) -> Tensor | MergedTokens:
        if self.keep == seen.num_visual:
            return torch.arange(seen.num_visual, device=seen.device).expand(seen.num_images, -1)
        local_BN, global_BN = seen.watched_attention[0].mean(dim=1), seen.cls_attention_BHN.mean(dim=1)
        window = WINDOW[seen.family.mrope] if self.window is None else self.window
        choose = self.by_order if seen.family.mrope else self.by_window
        kept_BK = choose(local_BN, global_BN, Windows(window, *layout(seen), seen.device))
        tokens_BKD, members_BKN = join(seen.projected_BND, kept_BK)
        return in_prompt(
            seen,
            tokens_BKD.to(seen.projected_BND.dtype),
            kept_BK,
            kept_BK.masked_fill(members_BKN.sum(dim=2) > 1, -1),
            members_BKN,
        )

    def by_window(self, local_BN: Tensor, global_BN: Tensor, windows: "Windows") -> Tensor:
        """As in LLaVA: equally many of every window, rounded down; int64 `[B, K]`, ascending.

        Args:
            local_BN, global_BN: attention in the early layer and in the observed one.
            windows: of the image.
        """
        asked = int(self.keep * self.local_share)
        each = asked // windows.number
        picked_BN = windows.places(local_BN) < each
        count = self.keep if self.exact else each * windows.number + self.keep - asked
        return stable_top_k(global_BN.masked_fill(picked_BN, float("inf")), count)

    def by_order(self, local_BN: Tensor, global_BN: Tensor, windows: "Windows") -> Tensor:
        """As in Qwen: by falling attention as long as the token's window has room; int64 `[B, keep]`, ascending."""
        asked = int(self.keep * self.local_share)
        allowed_BN = windows.places(local_BN) < -(-asked // windows.number)
        order_BN = rank(local_BN.masked_fill(~allowed_BN, float("-inf")))
        picked_BN = torch.zeros_like(allowed_BN).scatter(1, order_BN[:, :asked], True) & allowed_BN
        return stable_top_k(global_BN.masked_fill(picked_BN, float("inf")), self.keep)

    def choosing_flops(self, sizes: Sizes) -> int:
        if self.keep == sizes.visual_tokens:
            return 0
        comparing = averaging = 2 * self.keep * sizes.visual_tokens * sizes.hidden
        return 2 * costs.attention(sizes) + comparing + averaging


@dataclass
class OneStage(InsideLLM):
    """The half of `VScan` inside the language model; parameters are told there."""

    name: ClassVar[str] = "vscan"
    label: ClassVar[str] = "VScan"
    positions: ClassVar[Positions] = "repacked"

    layer: int | None = None
    share: float = 1 / 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer is not None:
            checks.whole_number("layer", self.layer, minimum=1)
        checks.fraction("share", self.share)

    def layer_of(self, num_layers: int) -> int:
        layer = max(1, num_layers // 2) if self.layer is None else self.layer
        if layer >= num_layers:
            raise ValueError(f"layer={layer} is not in front of any of the {num_layers} decoder layers: lower layer")
        return layer

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        return {self.layer_of(num_layers): int(num_visual * self.share)}

    def score(self, seen: ObservedLayer) -> Tensor:
        return seen.attention_ahead(rope=not seen.family.mrope)[:, :, 0].mean(dim=1)

    def choosing_flops(self, sizes: Sizes) -> int:
        present = sizes.visual_tokens + sizes.text_tokens
        query = sizes.hidden * sizes.heads * sizes.head_dim
        keys = present * sizes.hidden * sizes.kv_heads * sizes.head_dim
        return 2 * (query + keys + present * sizes.heads * sizes.head_dim)


@dataclass
class VScan(Method):
    """Zhang et al., arXiv 2505.22654: global and local scans, merging, and a middle layer's attention.

    Before the language model: a share of the `keep` tokens are the best of every window of the image by the attention
    of [CLS] in an early layer of the tower, the others the best of what is left by that of the layer whose features the
    language model gets (mean over heads). Every other token joins the kept one whose projected features are most
    similar (cosine), as plain means. Inside, in front of a middle layer, stay the tokens with the highest attention of
    the last token, as PyramidDrop computes it. Positions are re-packed both times.

    LLaVA's windows are 6 x 6 tokens and give equally many each; as this is rounded down, the authors' code returns
    fewer than `keep` tokens where it does not come out even (`exact=False`); by default the global scan fills up. Where
    the tower has no [CLS] (Qwen) it is the mean attention received, windows are 4 x 4 and take turns by attention, each
    up to an equal share rounded up, positions are kept, and the middle layer's attention is that without rotary
    embedding, as in the authors' code. Rows and columns left over belong to the last window. LLaVA-NeXT's crops are one
    window.

    Parameters:
        keep: tokens that enter the language model for every image.
        share: of the tokens present, rounded down, that the middle layer keeps; a third as published (.333 for Qwen).
        layer: 0-based layer in front of which they leave; None: half of the decoder, as published (16 of 32 and 14 of
            28).
        local_share: of `keep`, rounded down, that the local scan chooses.
        local_layer: 0-based block of the tower it looks at. None: the authors', 5 of 24 and 7 of 32 in Qwen2.5-VL, and
            at about that depth in others, among the blocks without windows.
        window: side of a window in tokens; None: as above.
        exact: `keep` tokens enter in any case; False: as in the authors' LLaVA code. Qwen's count is exact.
        mode: see `InsideLLM`.
    """

    name: ClassVar[str] = "vscan"
    label: ClassVar[str] = "VScan"
    role: ClassVar[Role] = "both"
    budget_parameter: ClassVar[str | None] = "keep"
    changes_tower: ClassVar[bool] = True

    keep: int = 96
    share: float = 1 / 3
    layer: int | None = None
    local_share: float = 0.5
    local_layer: int | None = None
    window: int | None = None
    exact: bool = True
    mode: str = field(default="static", kw_only=True)

    def __post_init__(self) -> None:
        self.parts()

    @property
    def _before(self) -> TwoScans:
        return TwoScans(self.keep, self.local_share, self.local_layer, self.window, self.exact)

    @property
    def _inside(self) -> OneStage:
        return OneStage(self.layer, self.share, mode=self.mode)

    def parts(self) -> tuple[PerImage | None, InsideLLM | None]:
        return self._before, self._inside

    @property
    def uses_cache(self) -> bool:
        return self._inside.uses_cache

    def visual_tokens_per_layer(self, num_visual: int, num_layers: int) -> list[int]:
        entering = self._before.visual_tokens_per_layer(num_visual, num_layers)[0]
        return self._inside.visual_tokens_per_layer(entering, num_layers)

    def choosing_flops(self, sizes: Sizes) -> int:
        inside = self._inside.choosing_flops(replace(sizes, visual_tokens=self.keep))
        return self._before.choosing_flops(sizes) + inside


class Windows:
    """Square windows of an image, those of every frame for themselves.

    Rows and columns left over belong to the last window; tokens that form no raster are one window.

    Attributes:
        number: of all windows.
        window_N: int64, the window of every token.
    """

    def __init__(self, side: int, frames: int, rows: int, columns: int, device: torch.device) -> None:
        high, wide = max(1, rows // side), max(1, columns // side)
        if rows == 1:
            high = wide = 1
        self.number = frames * high * wide
        row_R = (torch.arange(rows, device=device) // side).clamp(max=high - 1)
        column_C = (torch.arange(columns, device=device) // side).clamp(max=wide - 1)
        window_N = (row_R[:, None] * wide + column_C).flatten()
        self.window_N = (torch.arange(frames, device=device)[:, None] * (high * wide) + window_N).flatten()

    def places(self, scores_BN: Tensor) -> Tensor:
        """Place of every token in its window, by score descending, then index ascending: int64 `[B, N]`."""
        order_BN = rank(scores_BN)
        window_BN = self.window_N[order_BN]
        by_window_BN = window_BN.argsort(dim=1, stable=True)
        order_BN, window_BN = order_BN.gather(1, by_window_BN), window_BN.gather(1, by_window_BN)
        place_N = torch.arange(len(self.window_N), device=order_BN.device)
        first_BN = torch.where(window_BN != window_BN.roll(1, dims=1), place_N, 0)
        first_BN[:, 0] = 0
        return torch.zeros_like(order_BN).scatter(1, order_BN, place_N - first_BN.cummax(dim=1).values)


def join(tokens_BND: Tensor, kept_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Means of kept tokens and those that are most like them.

    Returns:
        `[B, K, D]` in at least float32, and what each is made of, bool `[B, K, N]`.
    """
    tokens_BND = wide(tokens_BND)
    place_K = torch.arange(kept_BK.shape[1], device=kept_BK.device)
    joined_BN = similarity(tokens_BND, pick_rows(tokens_BND, kept_BK)).argmax(dim=2)
    joined_BN = joined_BN.scatter(1, kept_BK, place_K.expand_as(kept_BK))
    members_BKN = joined_BN[:, None] == place_K[:, None]
    weights_BKN = members_BKN.to(tokens_BND.dtype)
    return (weights_BKN @ tokens_BND) / weights_BKN.sum(dim=2, keepdim=True), members_BKN
