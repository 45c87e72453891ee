"""Exact FLOPs of a vision-language model's prefill and decode steps, by formula from its configuration.

One multiply-add is 2 FLOPs. Counted is what `torch.utils.flop_counter.FlopCounterMode` counts: matrix products,
convolutions and attention products (dense: the causal half is not subtracted); element-wise work is not. Every layer
that runs is counted, also the last vision layers of a model that reads an earlier one.

`convention=` switches the decoder (and vision) terms to the formulas that papers of this field print, so that their
numbers can be reproduced; everything this project reports is `exact`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FAMILIES = ("llava", "llava_next", "qwen2_vl", "qwen2_5_vl")
CONVENTIONS = ("exact", "pyramiddrop", "vispruner", "sparsevlm", "divprune")


@dataclass(frozen=True)
class Flops:
    """FLOPs of one sample: four parts of the prefill, and one decode step after it."""

    vision: int
    projector: int
    decoder: int
    choosing: int
    per_decoded_token: int

    @property
    def total(self) -> int:
        """The whole prefill: vision tower + projector + decoder + what the method spends on choosing."""
        return self.vision + self.projector + self.decoder + self.choosing


def count(
    config: Any,
    visual_tokens_per_layer: Sequence[int],
    text_tokens: int,
    images: Sequence[int | Sequence[int]] = (1,),
    *,
    choosing: int = 0,
    logits: int = 1,
    convention: str = "exact",
) -> Flops:
    """FLOPs of one sample.

    Args:
        config: configuration of the whole model (`model.config`).
        visual_tokens_per_layer: visual tokens entering each decoder layer; they are also what its KV cache holds.
        text_tokens: prompt tokens that are not visual.
        images: per image, the crops that go through the vision tower (LLaVA: 1, LLaVA-NeXT: tiles + 1) or its patch
            grid (frames, height, width) before merging (Qwen2-VL, Qwen2.5-VL); see `images_of`.
        choosing: FLOPs the method itself spends during prefill (`method.choosing_flops(sizes)`).
        logits: positions that go through the output head; `generate` asks for the last one only.
        convention: `exact`, or the formula of a paper: `pyramiddrop` (visual tokens only, multiply-adds),
            `vispruner` (visual tokens only, plus the vision layers), `sparsevlm` (whole sequence, multiply-adds),
            `divprune` (whole sequence, two-matrix MLP, multiply-adds). None of them knows GQA, heads or decoding.

    Raises:
        TypeError: the model's family is not supported.
        ValueError: unknown convention, or a list whose length is not the number of decoder layers.
    """
    check_family(config)
    text = config.get_text_config()
    if len(visual_tokens_per_layer) != text.num_hidden_layers:
        raise ValueError(
            f"visual_tokens_per_layer has {len(visual_tokens_per_layer)} entries; "
            f"the model has {text.num_hidden_layers} decoder layers"
        )
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    if convention != "exact":
        return published(config, visual_tokens_per_layer, text_tokens, images, convention)
    lengths = [visual + text_tokens for visual in visual_tokens_per_layer]
    head = 2 * text.hidden_size * text.vocab_size
    return Flops(
        vision=vision_flops(config, images),
        projector=projector_flops(config, images),
        decoder=sum(decoder_layer_flops(text, length, length) for length in lengths) + logits * head,
        choosing=choosing,
        per_decoded_token=sum(decoder_layer_flops(text, 1, length + 1) for length in lengths) + head,
    )


def check_family(config: Any) -> None:
    """Raises TypeError unless the model is of a family (and has a vision tower) these formulas describe."""
    if config.model_type not in FAMILIES:
        raise TypeError(f"no FLOPs formula for model type {config.model_type!r}; supported: {', '.join(FAMILIES)}")
    tower = config.vision_config.model_type
    if config.model_type.startswith("llava") and tower != "clip_vision_model":
        raise TypeError(f"no FLOPs formula for vision tower {tower!r}; supported for LLaVA: clip_vision_model")


def decoder_layer_flops(text: Any, queries: int, keys: int) -> int:
    """One decoder layer (grouped-query attention, gated MLP): `queries` tokens run, attending to `keys` tokens."""
    hidden, heads = text.hidden_size, text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    projections = 2 * hidden * heads * head_dim + 2 * hidden * kv_heads * head_dim
    mlp = 3 * hidden * text.intermediate_size
    attention = 2 * keys * heads * head_dim
    return 2 * queries * (projections + mlp + attention)


def vision_flops(config: Any, images: Sequence[int | Sequence[int]]) -> int:
    """Vision tower of all images of a sample, without the projector."""
    vision = config.vision_config
    if config.model_type.startswith("llava"):
        patches = (vision.image_size // vision.patch_size) ** 2
        embedding = 2 * patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size
        tokens = patches + 1
        layer = vision_layer_flops(tokens, vision.hidden_size, 2 * vision.intermediate_size, tokens**2)
        return crops_of(images) * (embedding + vision.num_hidden_layers * layer)
    return sum(qwen_vision_flops(config, *grid) for grid in grids_of(images))


def vision_layer_flops(tokens: int, width: int, mlp_columns: int, token_pairs: int) -> int:
    """One vision layer; `mlp_columns` = matrices of the MLP x its inner width, `token_pairs` = query-key pairs."""
    return 2 * (4 * tokens * width**2 + 2 * token_pairs * width + tokens * width * mlp_columns)


def qwen_vision_flops(config: Any, frames: int, height: int, width: int) -> int:
    """Qwen2-VL (full attention within a frame) and Qwen2.5-VL (windows, some layers full) for one patch grid."""
    vision = config.vision_config
    tokens, full_pairs = frames * height * width, frames * (height * width) ** 2
    patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    if config.model_type == "qwen2_vl":
        size, mlp_columns = vision.embed_dim, 2 * int(vision.embed_dim * vision.mlp_ratio)
        pairs = [full_pairs] * vision.depth
    else:
        size, mlp_columns = vision.hidden_size, 3 * vision.intermediate_size
        windowed = frames * window_pairs(vision, height, width)
        pairs = [full_pairs if i in vision.fullatt_block_indexes else windowed for i in range(vision.depth)]
    layers = sum(vision_layer_flops(tokens, size, mlp_columns, layer_pairs) for layer_pairs in pairs)
    return 2 * tokens * patch * size + layers


def window_pairs(vision: Any, height: int, width: int) -> int:
    """Query-key pairs of one frame under Qwen2.5-VL's windows: the windows tile the grid, those at the edge are cut."""
    side = vision.window_size // vision.patch_size

    def squares(length: int) -> int:
        return length // side * side**2 + (length % side) ** 2

    return squares(height) * squares(width)


def projector_flops(config: Any, images: Sequence[int | Sequence[int]]) -> int:
    """The two-layer projector (LLaVA) or the patch merger (Qwen) over every visual token: pruning comes after it."""
    vision, hidden = config.vision_config, config.get_text_config().hidden_size
    if config.model_type.startswith("llava"):
        patches = (vision.image_size // vision.patch_size) ** 2
        tokens = crops_of(images) * (patches + (config.vision_feature_select_strategy == "full"))
        layers = config.vision_feature_layer
        inputs = vision.hidden_size * (1 if isinstance(layers, int) else len(layers))
        return 2 * tokens * (inputs * hidden + hidden**2)
    merged = vision.spatial_merge_size**2
    inner = merged * (vision.embed_dim if config.model_type == "qwen2_vl" else vision.hidden_size)
    outputs = vision.hidden_size if config.model_type == "qwen2_vl" else vision.out_hidden_size
    tokens = sum(frames * height * width // merged for frames, height, width in grids_of(images))
    return 2 * tokens * (inner**2 + inner * outputs)


def crops_of(images: Sequence[int | Sequence[int]]) -> int:
    """Crops of all images together. Raises ValueError where a patch grid was given instead."""
    if not all(isinstance(image, int) for image in images):
        raise ValueError(f"images of a LLaVA model are given as numbers of crops, got {list(images)}")
    return sum(image for image in images if isinstance(image, int))


def grids_of(images: Sequence[int | Sequence[int]]) -> list[tuple[int, int, int]]:
    """Patch grids of all images. Raises ValueError where a number of crops was given instead."""
    grids = [tuple(int(side) for side in image) for image in images if not isinstance(image, int)]
    if len(grids) != len(images) or any(len(grid) != 3 for grid in grids):
        raise ValueError(f"images of a Qwen model are given as patch grids (frames, height, width), got {list(images)}")
    return [(grid[0], grid[1], grid[2]) for grid in grids]


def vision_tokens(config: Any, images: Sequence[int | Sequence[int]]) -> int:
    """Tokens that the vision tower computes on for all images of a sample, [CLS] included, before any merging."""
    if config.model_type.startswith("llava"):
        return crops_of(images) * ((config.vision_config.image_size // config.vision_config.patch_size) ** 2 + 1)
    return sum(frames * height * width for frames, height, width in grids_of(images))


def images_of(config: Any, inputs: dict[str, Any]) -> list[list[Any]]:
    """The `images` argument of `count` for each sample of a batch whose prompts hold one image or one video each.

    Reads what the processor returned: `image_grid_thw` or `video_grid_thw` [B, 3] (Qwen), `image_sizes` [B, 2]
    (LLaVA-NeXT), else `pixel_values` [B, ...] (LLaVA).
    """
    check_family(config)
    if config.model_type.startswith("qwen"):
        grids = inputs["image_grid_thw"] if "image_grid_thw" in inputs else inputs["video_grid_thw"]
        return [[grid] for grid in grids.tolist()]
    if config.model_type == "llava_next":
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        side, pinpoints = config.vision_config.image_size, config.image_grid_pinpoints
        return [[int(image_size_to_num_patches(size, pinpoints, side))] for size in inputs["image_sizes"]]
    return [[1] for _ in range(inputs["pixel_values"].shape[0])]


def published(
    config: Any,
    visual_tokens_per_layer: Sequence[int],
    text_tokens: int,
    images: Sequence[int | Sequence[int]],
    convention: str,
) -> Flops:
    """The decoder formulas found in papers: per layer `4 n d^2 + 2 n^2 d + (2 or 3) n d m` multiply-adds.

    PyramidDrop (arXiv 2410.17247), VisPruner (arXiv 2412.01818; twice that, plus its ViT: 0.381 T for a CLIP-L/14-336
    crop), SparseVLM (arXiv 2410.04417) and DivPrune (arXiv 2503.02175). Projector and choosing are left out by all.
    """
    text, vision = config.get_text_config(), config.vision_config
    extra = text_tokens if convention in ("sparsevlm", "divprune") else 0
    matrices = 2 if convention == "divprune" else 3
    hidden, inner = text.hidden_size, text.intermediate_size
    decoder = sum(
        4 * n * hidden**2 + 2 * n**2 * hidden + matrices * n * hidden * inner
        for n in (visual + extra for visual in visual_tokens_per_layer)
    )
    tower = 0
    if convention == "vispruner":
        decoder *= 2
        if not config.model_type.startswith("llava"):
            raise ValueError("the vispruner convention describes CLIP vision towers (LLaVA, LLaVA-NeXT) only")
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        layer = vision_layer_flops(tokens, vision.hidden_size, 2 * vision.intermediate_size, tokens**2)
        tower = crops_of(images) * vision.num_hidden_layers * layer
    return Flops(vision=tower, projector=0, decoder=decoder, choosing=0, per_decoded_token=0)
