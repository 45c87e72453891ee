"""FLOPs of what several methods compute while they choose."""

from pruning.budget import Sizes


def has_cls(sizes: Sizes) -> bool:
    """Whether the vision tower has a [CLS]: without it the visual tokens are its patches, or those merged evenly."""
    return sizes.vision_tokens % sizes.visual_tokens != 0


def attention(sizes: Sizes) -> int:
    """The attention row of [CLS] in one vision layer; in towers without it the rows of all patches."""
    rows = 1 if has_cls(sizes) else sizes.vision_tokens
    return 2 * rows * sizes.vision_tokens * sizes.vision_width


def projection(sizes: Sizes, tokens: int) -> int:
    """Projecting merged tokens with LLaVA's two layers; towers without [CLS] merge what is already projected."""
    return 2 * tokens * (sizes.vision_width + sizes.hidden) * sizes.hidden if has_cls(sizes) else 0


def mergeable_width(sizes: Sizes) -> int:
    """Width of the tokens that merging averages."""
    return sizes.vision_width if has_cls(sizes) else sizes.hidden
