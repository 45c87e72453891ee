"""The counts and widths that FLOPs are made of, from a model's configuration alone."""

import math
from dataclasses import dataclass
from typing import Self

from transformers import PretrainedConfig


@dataclass(frozen=True)
class Sizes:
    """The counts and widths that FLOPs are made of.

    `visual_tokens` enter the decoder before any pruning; `vision_tokens` are what the vision tower computes on (with
    [CLS] and before any patch merger), summed over all images and crops. `vision_layers` are all layers of the tower,
    `observed_layers` those up to the one whose features methods see. `has_cls` says whether the tower puts a [CLS] in
    front of the patches, `projects_alone` whether the projector maps those features token by token.
    """

    visual_tokens: int
    text_tokens: int
    vision_tokens: int
    vision_width: int
    vision_heads: int
    vision_layers: int
    observed_layers: int
    has_cls: bool
    projects_alone: bool
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    layers: int

    @classmethod
    def of(
        cls, config: PretrainedConfig, *, visual_tokens: int, text_tokens: int, vision_tokens: int | None = None
    ) -> Self:
        """Sizes of a model of one of the supported families.

        Args:
            config: the configuration of the entire model (`model.config`).
            visual_tokens: placeholders of the image token in the prompt.
            text_tokens: all other tokens of the prompt.
            vision_tokens: tokens the vision tower computes on; derived from `visual_tokens` where the family fixes it.

        Raises:
            ValueError: `vision_tokens` is missing and does not follow from `visual_tokens` (LLaVA-NeXT: the number of
                crops depends on the image).
            TypeError: the configuration has no vision or text part.
        """
        vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
        if vision is None or text is None:
            raise TypeError(f"{type(config).__name__} has no vision_config and text_config: pass a LVLM's model.config")
        if vision_tokens is None:
            vision_tokens = _vision_tokens(config, visual_tokens)
        heads = text.num_attention_heads
        return cls(
            visual_tokens=visual_tokens,
            text_tokens=text_tokens,
            vision_tokens=vision_tokens,
            # Qwen2-VL alone keeps the decoder's width in hidden_size and its own in embed_dim.
            vision_width=getattr(vision, "embed_dim", None) or vision.hidden_size,
            vision_heads=_either(vision, "num_attention_heads", "num_heads"),
            vision_layers=_either(vision, "num_hidden_layers", "depth"),
            observed_layers=_observed_layers(config),
            has_cls=_has_cls(vision),
            projects_alone=isinstance(getattr(config, "vision_feature_layer", None), int),
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            intermediate=text.intermediate_size,
            layers=text.num_hidden_layers,
        )


def _vision_tokens(config: PretrainedConfig, visual_tokens: int) -> int:
    vision = config.vision_config
    if merge := getattr(vision, "spatial_merge_size", None):
        return visual_tokens * merge**2
    if hasattr(config, "image_grid_pinpoints"):
        raise ValueError(
            "LLaVA-NeXT cuts an image into a varying number of crops: pass vision_tokens, the sum over crops"
        )
    tokens = (vision.image_size // vision.patch_size) ** 2 + _has_cls(vision)
    # "default" takes the first token off, whether it is a [CLS] or not.
    per_image = tokens - (config.vision_feature_select_strategy == "default")
    return math.ceil(visual_tokens / per_image) * tokens


def _has_cls(vision: PretrainedConfig) -> bool:
    """Of the towers that the families know CLIP's alone has a [CLS]; SigLIP's and Qwen's have none."""
    return bool(vision.model_type == "clip_vision_model")


def _observed_layers(config: PretrainedConfig) -> int:
    """As `vision_layer` of the family (pruning/models/families.py), of which there is no model here, plus one."""
    layers = _either(config.vision_config, "num_hidden_layers", "depth")
    if full_attention := getattr(config.vision_config, "fullatt_block_indexes", None):
        return int(max(full_attention)) + 1
    chosen = getattr(config, "vision_feature_layer", None)
    if chosen is None:
        return layers
    last = chosen if isinstance(chosen, int) else chosen[-1]
    return int(last if last >= 0 else layers + 1 + last)


def _either(config: PretrainedConfig, *names: str) -> int:
    """The first of several names that the families use for the same number."""
    for name in names:
        if hasattr(config, name):
            return int(getattr(config, name))
    raise TypeError(f"{type(config).__name__} has none of {', '.join(names)}")
