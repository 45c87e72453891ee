"""LLaVA-NeXT: a base crop, then the unpadded raster of the other crops with a newline token after every row."""

from typing import Any, ClassVar

from transformers import LlavaNextForConditionalGeneration, PretrainedConfig, PreTrainedModel
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from pruning.models.clip_tower import CropVision
from pruning.models.llava import Llava
from pruning.models.vision import Vision


class LlavaNext(Llava):
    """LLaVA-NeXT: the tower and the projector are LLaVA's, the images are cut into crops."""

    model_class: ClassVar[type[PreTrainedModel]] = LlavaNextForConditionalGeneration
    model_type: ClassVar[str] = "llava_next"
    has_glimpse: ClassVar[bool] = False

    def watch_vision(self) -> Vision:
        if self.model.config.vision_feature_select_strategy != "default":
            raise ValueError("LLaVA-NeXT is supported with vision_feature_select_strategy='default' only")
        return CropVision(self.core, self.vision_layer)

    @classmethod
    def tokens_behind(cls, config: PretrainedConfig, visual_tokens: int) -> int:
        raise ValueError(
            "LLaVA-NeXT cuts an image into a varying number of crops: pass vision_tokens, the sum over crops"
        )

    @classmethod
    def images_of(cls, config: PretrainedConfig, inputs: dict[str, Any]) -> list[list[Any]]:
        """The crops of each; reads `image_sizes` [B, 2]."""
        side, pinpoints = config.vision_config.image_size, config.image_grid_pinpoints
        return [[int(image_size_to_num_patches(size, pinpoints, side))] for size in inputs["image_sizes"]]
