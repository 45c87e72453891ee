"""The counts and widths that FLOPs are made of, from a model's configuration alone."""

from dataclasses import dataclass
from typing import Self

from transformers import PretrainedConfig

from pruning.models.families import family_of_config


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
            TypeError: the configuration has no vision or text part, or is of no supported family.
        """
        vision, text = getattr(config, "vision_config", None), getattr(config, "text_config", None)
        if vision is None or text is None:
            raise TypeError(f"{type(config).__name__} has no vision_config and text_config: pass a LVLM's model.config")
        family = family_of_config(config)
        if vision_tokens is None:
            vision_tokens = family.tokens_behind(config, visual_tokens)
        vision_width, vision_heads, vision_layers = family.vision_sizes(vision)
        heads = text.num_attention_heads
        return cls(
            visual_tokens=visual_tokens,
            text_tokens=text_tokens,
            vision_tokens=vision_tokens,
            vision_width=vision_width,
            vision_heads=vision_heads,
            vision_layers=vision_layers,
            observed_layers=family.observed_layers(config),
            has_cls=family.has_cls(config),
            projects_alone=family.projects_alone(config),
            hidden=text.hidden_size,
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            intermediate=text.intermediate_size,
            layers=text.num_hidden_layers,
        )
