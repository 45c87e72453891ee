"""FLOPs of one layer; one multiply-add is 2. See pruning/models/flops.py for what counts."""

from collections.abc import Sequence
from typing import Any

Images = Sequence[int | Sequence[int]]  # see pruning.models.flops.count


def decoder_layer_flops(text: Any, queries: int, keys: int) -> int:
    """One decoder layer (grouped-query attention, gated MLP): `queries` tokens run, attending to `keys` tokens."""
    hidden, heads = text.hidden_size, text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    projections = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    mlp = 3 * hidden * text.intermediate_size
    attention = 2 * keys * heads * head_dim
    return 2 * queries * (projections + mlp + attention)


def vision_layer_flops(tokens: int, width: int, mlp_columns: int, token_pairs: int) -> int:
    """One vision layer; `mlp_columns` = matrices of the MLP x its inner width, `token_pairs` = query-key pairs."""
    return 2 * (4 * tokens * width**2 + 2 * token_pairs * width + tokens * width * mlp_columns)


def crops_of(images: Images) -> int:
    """Crops of all images together. Raises ValueError where a patch grid was given instead."""
    if not all(isinstance(image, int) for image in images):
        raise ValueError(f"images of a LLaVA model are given as numbers of crops, got {list(images)}")
    return sum(image for image in images if isinstance(image, int))


def grids_of(images: Images) -> list[tuple[int, int, int]]:
    """Patch grids of all images. Raises ValueError where a number of crops was given instead."""
    grids = [tuple(int(side) for side in image) for image in images if not isinstance(image, int)]
    if len(grids) != len(images) or any(len(grid) != 3 for grid in grids):
        raise ValueError(f"images of a Qwen model are given as patch grids (frames, height, width), got {list(images)}")
    return [(grid[0], grid[1], grid[2]) for grid in grids]
