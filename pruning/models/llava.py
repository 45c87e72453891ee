"""LLaVA-1.5 and its like: one square image, one raster of patches, a two-layer projector."""

import math
from typing import Any, ClassVar

from transformers import LlavaForConditionalGeneration, PretrainedConfig, PreTrainedModel

from pruning.models.clip_tower import PatchVision
from pruning.models.family import Family
from pruning.models.layer_flops import Images, crops_of, vision_layer_flops
from pruning.models.vision import Vision


class Llava(Family):
    """LLaVA-1.5 and its like."""

    model_class: ClassVar[type[PreTrainedModel]] = LlavaForConditionalGeneration
    model_type: ClassVar[str] = "llava"
    has_glimpse: ClassVar[bool] = True

    @property
    def vision_tower(self) -> Any:
        return self.core.vision_tower

    @property
    def projector(self) -> Any:
        return self.core.multi_modal_projector

    def watch_vision(self) -> Vision:
        keeps_cls = self.model.config.vision_feature_select_strategy == "full"
        return PatchVision(self.vision_tower, self.vision_layer, keeps_cls=keeps_cls)

    @classmethod
    def vision_sizes(cls, vision: PretrainedConfig) -> tuple[int, int, int]:
        return vision.hidden_size, vision.num_attention_heads, vision.num_hidden_layers

    @classmethod
    def observed_layers(cls, config: PretrainedConfig) -> int:
        # hidden_states[-2] is the output of layer L-2: there is one more hidden state than there are layers.
        chosen = config.vision_feature_layer
        last = chosen if isinstance(chosen, int) else chosen[-1]
        return int(last if last >= 0 else config.vision_config.num_hidden_layers + 1 + last)

    @classmethod
    def has_cls(cls, config: PretrainedConfig) -> bool:
        """CLIP's tower has one, SigLIP's does not."""
        return bool(config.vision_config.model_type == "clip_vision_model")

    @classmethod
    def projects_alone(cls, config: PretrainedConfig) -> bool:
        return isinstance(config.vision_feature_layer, int)

    @classmethod
    def tokens_behind(cls, config: PretrainedConfig, visual_tokens: int) -> int:
        tokens = _patches(config) + cls.has_cls(config)
        # "default" takes the first token off, whether it is a [CLS] or not.
        per_image = tokens - (config.vision_feature_select_strategy == "default")
        return math.ceil(visual_tokens / per_image) * tokens

    @classmethod
    def vision_tokens(cls, config: PretrainedConfig, images: Images) -> int:
        return crops_of(images) * (_patches(config) + 1)

    @classmethod
    def images_of(cls, config: PretrainedConfig, inputs: dict[str, Any]) -> list[list[Any]]:
        """One crop each; reads `pixel_values` [B, ...]."""
        return [[1] for _ in range(inputs["pixel_values"].shape[0])]

    @classmethod
    def check_flops(cls, config: PretrainedConfig) -> None:
        tower = config.vision_config.model_type
        if tower != "clip_vision_model":
            raise TypeError(f"no FLOPs formula for vision tower {tower!r}; supported for LLaVA: clip_vision_model")

    @classmethod
    def vision_flops(cls, config: PretrainedConfig, images: Images) -> int:
        vision, patches = config.vision_config, _patches(config)
        embedding = 2 * patches * vision.num_channels * vision.patch_size**2 * vision.hidden_size
        tokens = patches + 1
        layer = vision_layer_flops(tokens, vision.hidden_size, 2 * vision.intermediate_size, tokens**2)
        return crops_of(images) * (embedding + vision.num_hidden_layers * layer)

    @classmethod
    def projector_flops(cls, config: PretrainedConfig, images: Images) -> int:
        hidden, layers = config.get_text_config().hidden_size, config.vision_feature_layer
        tokens = crops_of(images) * (_patches(config) + (config.vision_feature_select_strategy == "full"))
        inputs = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
        return int(2 * tokens * (inputs * hidden + hidden**2))


def _patches(config: PretrainedConfig) -> int:
    """Of one square image or crop."""
    return int((config.vision_config.image_size // config.vision_config.patch_size) ** 2)
