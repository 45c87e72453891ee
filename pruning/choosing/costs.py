"""FLOPs of what several methods compute while they choose."""

from pruning.models.sizes import Sizes


def attention(sizes: Sizes) -> int:
    """The attention row of [CLS] in one vision layer; in towers without it the rows of all patches."""
    rows = 1 if sizes.has_cls else sizes.vision_tokens
    return 2 * rows * sizes.vision_tokens * sizes.vision_width


def projection(sizes: Sizes, tokens: int) -> int:
    """Projecting merged tokens with LLaVA's two layers; other models merge what is already projected."""
    return 2 * tokens * (sizes.vision_width + sizes.hidden) * sizes.hidden if sizes.projects_alone else 0


def mergeable_width(sizes: Sizes) -> int:
    """Width of the tokens that merging averages."""
    return sizes.vision_width if sizes.projects_alone else sizes.hidden
