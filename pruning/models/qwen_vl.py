"""Qwen2-VL and Qwen2.5-VL: images and videos of any size, patches merged 2x2, positions with three axes."""

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import (
    PretrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from pruning.models.family import Family
from pruning.models.layer_flops import Images, grids_of, vision_layer_flops
from pruning.models.qwen_tower import QwenVision
from pruning.models.vision import Vision


class Qwen2VL(Family):
    """Qwen2-VL: full attention within a frame."""

    model_class: ClassVar[type[PreTrainedModel]] = Qwen2VLForConditionalGeneration
    model_type: ClassVar[str] = "qwen2_vl"
    mrope: ClassVar[bool] = True

    @property
    def vision_tower(self) -> Any:
        return self.core.visual

    @property
    def projector(self) -> Any:
        return self.core.visual.merger

    def watch_vision(self) -> Vision:
        return QwenVision(self.vision_tower, self.vision_layer)

    @classmethod
    def vision_sizes(cls, vision: PretrainedConfig) -> tuple[int, int, int]:
        # Qwen2-VL alone keeps the decoder's width in hidden_size and its own in embed_dim.
        return vision.embed_dim, vision.num_heads, vision.depth

    @classmethod
    def observed_layers(cls, config: PretrainedConfig) -> int:
        return int(config.vision_config.depth)

    @classmethod
    def tokens_behind(cls, config: PretrainedConfig, visual_tokens: int) -> int:
        return int(visual_tokens * config.vision_config.spatial_merge_size**2)

    @classmethod
    def vision_tokens(cls, config: PretrainedConfig, images: Images) -> int:
        return sum(frames * height * width for frames, height, width in grids_of(images))

    @classmethod
    def images_of(cls, config: PretrainedConfig, inputs: dict[str, Any]) -> list[list[Any]]:
        """The patch grid of each; reads `image_grid_thw` or `video_grid_thw` [B, 3]."""
        grids = inputs["image_grid_thw"] if "image_grid_thw" in inputs else inputs["video_grid_thw"]
        return [[grid] for grid in grids.tolist()]

    @classmethod
    def mlp_columns(cls, vision: PretrainedConfig) -> int:
        """Matrices of the tower's MLP times its inner width."""
        return 2 * int(vision.embed_dim * vision.mlp_ratio)

    @classmethod
    def pairs(cls, vision: PretrainedConfig, frames: int, height: int, width: int) -> Sequence[int]:
        """Query-key pairs of every block for one patch grid."""
        return [frames * (height * width) ** 2] * vision.depth

    @classmethod
    def vision_flops(cls, config: PretrainedConfig, images: Images) -> int:
        vision = config.vision_config
        size, columns = cls.vision_sizes(vision)[0], cls.mlp_columns(vision)
        patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        total = 0
        for frames, height, width in grids_of(images):
            tokens = frames * height * width
            blocks = cls.pairs(vision, frames, height, width)
            total += 2 * tokens * patch * size + sum(vision_layer_flops(tokens, size, columns, one) for one in blocks)
        return total

    @classmethod
    def merger_width(cls, vision: PretrainedConfig) -> int:
        """What the patch merger maps to."""
        return int(vision.hidden_size)

    @classmethod
    def projector_flops(cls, config: PretrainedConfig, images: Images) -> int:
        vision = config.vision_config
        merged = vision.spatial_merge_size**2
        inner = merged * cls.vision_sizes(vision)[0]
        tokens = sum(frames * height * width // merged for frames, height, width in grids_of(images))
        return int(2 * tokens * (inner**2 + inner * cls.merger_width(vision)))


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: as Qwen2-VL, with windowed attention in all but a few vision blocks."""

    model_class: ClassVar[type[PreTrainedModel]] = Qwen2_5_VLForConditionalGeneration
    model_type: ClassVar[str] = "qwen2_5_vl"
    has_glimpse: ClassVar[bool] = True

    @classmethod
    def vision_sizes(cls, vision: PretrainedConfig) -> tuple[int, int, int]:
        return vision.hidden_size, vision.num_heads, vision.depth

    @classmethod
    def observed_layers(cls, config: PretrainedConfig) -> int:
        # Windowed blocks cannot compare tokens of different windows: the last block with full attention can.
        return int(max(config.vision_config.fullatt_block_indexes)) + 1

    @classmethod
    def full_attention_blocks(cls, config: PretrainedConfig) -> Sequence[int]:
        return sorted(config.vision_config.fullatt_block_indexes)

    @classmethod
    def mlp_columns(cls, vision: PretrainedConfig) -> int:
        return int(3 * vision.intermediate_size)

    @classmethod
    def pairs(cls, vision: PretrainedConfig, frames: int, height: int, width: int) -> Sequence[int]:
        full, windowed = frames * (height * width) ** 2, frames * window_pairs(vision, height, width)
        return [full if block in vision.fullatt_block_indexes else windowed for block in range(vision.depth)]

    @classmethod
    def merger_width(cls, vision: PretrainedConfig) -> int:
        return int(vision.out_hidden_size)


def window_pairs(vision: Any, height: int, width: int) -> int:
    """Query-key pairs of one frame under Qwen2.5-VL's windows: the windows tile the grid, those at the edge are cut."""
    side = vision.window_size // vision.patch_size

    def squares(length: int) -> int:
        return length // side * side**2 + (length % side) ** 2

    return squares(height) * squares(width)
