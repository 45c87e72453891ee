"""Models of random weights in the published sizes, made on the device, and prompts for them; tiny ones for a CPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaNextConfig, PreTrainedConfig, PreTrainedModel, Qwen2_5_VLConfig

from pruning.glimpse.configuration import PUBLISHED_CONFIGS, GlimpseConfig
from pruning.glimpse.modules import GlimpseModules
from pruning.models.families import family_of_config

SMALL_TEXT = {
    "vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512,
}  # fmt: skip
SMALL_CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 24, "patch_size": 4,
}  # fmt: skip
VICUNA = {
    "vocab_size": 32064, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
}  # fmt: skip
CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
QWEN = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768,
}  # fmt: skip
QWEN_TOWER = {
    "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584, "depth": 32, "num_heads": 16,
    "patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip
SMALL_QWEN_TOWER = {
    "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "depth": 3, "num_heads": 2, "patch_size": 4,
    "window_size": 16, "fullatt_block_indexes": [1],
}  # fmt: skip
SMALL_GLIMPSE = {"attn_fuse_size": 16, "visual_cond_size": 16, "attn_fuse_num_heads": 2}
NO_SPECIAL = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
TEXT_IN_FRONT, TEXT_BEHIND = 35, 25


@dataclass(frozen=True)
class Shape:
    """A model's sizes and what it is asked.

    Attributes:
        name: of the model whose sizes these are.
        config: of the model.
        visual_tokens: of every prompt, which has one image.
        pixels: one image's `pixel_values`, and what else the family needs of it.
        batch: prompts.
        keeps: visual tokens to keep of each, the most important number first.
        glimpse: configuration of GlimpsePrune's modules where it is made for the model.
    """

    name: str
    config: PreTrainedConfig
    visual_tokens: int
    pixels: tuple[int, ...]
    batch: int
    keeps: Sequence[int]
    glimpse: GlimpseConfig | None = None

    def build(self, device: torch.device, dtype: torch.dtype, attention: str = "sdpa") -> PreTrainedModel:
        """The model, straight on the device; the weights of every output are drawn from N(0, 1 / inputs)."""
        torch.manual_seed(0)
        with device:
            made = family_of_config(self.config).model_class._from_config(
                self.config, attn_implementation=attention, dtype=dtype
            )
        model: PreTrainedModel = made.eval().requires_grad_(False)
        for parameter in model.parameters():
            if parameter.ndim > 1:  # as drawn by transformers, attention is flat and all logits are alike
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = 0
        return model

    def modules(self, model: PreTrainedModel) -> GlimpseModules | None:
        """GlimpsePrune's modules, untrained, in the model's dtype."""
        if self.glimpse is None:
            return None
        torch.manual_seed(1)
        return GlimpseModules.for_model(model, self.glimpse).to(model.dtype).eval().requires_grad_(False)

    def inputs(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """Prompts of equal length: text, the visual tokens of one image, more text."""
        generator = torch.Generator().manual_seed(2)
        rows = TEXT_IN_FRONT + self.visual_tokens + TEXT_BEHIND
        ids_BL = torch.randint(1, 90, (self.batch, rows), generator=generator)
        ids_BL[:, TEXT_IN_FRONT : TEXT_IN_FRONT + self.visual_tokens] = self.config.image_token_id
        inputs: dict[str, Any] = {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
        if self.config.model_type == "qwen2_5_vl":
            grid = torch.tensor([self.pixels[:3]] * self.batch)
            patches = int(grid.prod(dim=1).sum())
            inputs["pixel_values"] = torch.randn(patches, self.pixels[3], generator=generator)
            inputs["image_grid_thw"] = grid
            inputs["mm_token_type_ids"] = (ids_BL == self.config.image_token_id).int()
        else:
            inputs["pixel_values"] = torch.randn(self.batch, *self.pixels, generator=generator)
        if self.config.model_type == "llava_next":
            side = 2 * self.config.vision_config.image_size
            inputs["image_sizes"] = torch.tensor([[side, side]] * self.batch)
        return moved(inputs, device, dtype)


def moved(inputs: dict[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The inputs on the device, pixels in this dtype."""
    return {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in inputs.items()
    }


def llava(small: bool) -> Shape:
    """LLaVA-1.5-7B: 576 visual tokens."""
    text, vision = (SMALL_TEXT, SMALL_CLIP) if small else (VICUNA, CLIP)
    image_token = text["vocab_size"] - 1
    config = LlavaConfig(
        vision_config=vision, text_config={"model_type": "llama", **text, **NO_SPECIAL}, image_token_index=image_token
    )
    preset = PUBLISHED_CONFIGS["llava-1.5-7b"].config
    glimpse = GlimpseConfig(2, 3, (2, 1), False, **SMALL_GLIMPSE) if small else preset
    side = int(vision["image_size"])
    keeps = (12, 18) if small else (128, 64, 192)
    return Shape("llava-1.5-7b", config, 36 if small else 576, (3, side, side), 1, keeps, glimpse)


def llava_next(small: bool) -> Shape:
    """LLaVA-NeXT-7B: five crops, 2880 patches and 48 newlines."""
    text, vision = (SMALL_TEXT, SMALL_CLIP | {"patch_size": 8}) if small else (VICUNA, CLIP)
    image_token, side = text["vocab_size"] - 1, int(vision["image_size"])
    config = LlavaNextConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **text, **NO_SPECIAL},
        image_token_index=image_token,
        image_grid_pinpoints=[[side, 2 * side], [2 * side, side], [2 * side, 2 * side]],
    )
    edge = side // int(vision["patch_size"])
    tokens = edge**2 + 2 * edge * (2 * edge + 1)
    keeps = (17,) if small else (320, 160, 640)
    return Shape("llava-next-7b", config, tokens, (5, 3, side, side), 1, keeps)


def qwen(small: bool) -> Shape:
    """Qwen2.5-VL-7B: four images of 1024 visual tokens each."""
    text, vision = (SMALL_TEXT, SMALL_QWEN_TOWER) if small else (QWEN, QWEN_TOWER)
    section = [2, 1, 1] if small else [16, 24, 24]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    last = text["vocab_size"] - 1
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config={**text, **NO_SPECIAL, "rope_parameters": rope},
        image_token_id=last,
        video_token_id=last - 1,
        vision_start_token_id=last - 2,
        vision_end_token_id=last - 3,
    )
    preset = PUBLISHED_CONFIGS["qwen2.5-vl-7b"].config
    glimpse = GlimpseConfig(2, 3, (2, 0), True, **SMALL_GLIMPSE) if small else preset
    rows, columns = (8, 12) if small else (64, 64)
    patch = 3 * 2 * int(vision["patch_size"]) ** 2
    tokens = rows * columns // 4
    keeps = (12,) if small else (114,)
    return Shape("qwen2.5-vl-7b", config, tokens, (1, rows, columns, patch), 2 if small else 4, keeps, glimpse)


SHAPES = {"llava-next-7b": llava_next, "llava-1.5-7b": llava, "qwen2.5-vl-7b": qwen}
