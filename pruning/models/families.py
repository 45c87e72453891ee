"""Where each supported Hugging Face model keeps its parts. The engine knows models through this file only."""

from typing import Any

from transformers import (
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from pruning.models.clip_tower import CropVision, PatchVision
from pruning.models.qwen_tower import MergedVision
from pruning.models.vision import Vision


class Family:
    """The parts of one model.

    Attributes:
        core: the module that merges text and images and calls the language model.
        vision_tower: the image encoder; projector: what maps its features to the width of the language model.
        language_model: the decoder without its head; layers: its decoder layers.
        vision_layer: 0-based layer of the vision tower that methods observe.
        image_token_id, video_token_id: placeholders in the prompt; None where the family has none.
        mrope: whether positions have three axes. Re-packing has no meaning there: original positions are kept.
    """

    mrope = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.core: Any = model.model
        self.language_model: Any = self.core.language_model
        self.layers: Any = self.language_model.layers
        self.image_token_id: int = model.config.image_token_id
        self.video_token_id: int | None = getattr(model.config, "video_token_id", None)
        _check_decoder(self.language_model, self.layers)

    @property
    def placeholder_ids(self) -> dict[str, int]:
        """Token ids of the placeholders of an image and, where the family takes videos, of a video."""
        videos = {} if self.video_token_id is None else {"video": self.video_token_id}
        return {"image": self.image_token_id, **videos}

    @property
    def vision_tower(self) -> Any:
        return self.core.vision_tower

    @property
    def projector(self) -> Any:
        return self.core.multi_modal_projector

    @property
    def vision_layer(self) -> int:
        # hidden_states[-2] is the output of layer L-2: there is one more hidden state than there are layers.
        chosen = self.model.config.vision_feature_layer
        last = chosen if isinstance(chosen, int) else chosen[-1]
        layers = len(self.vision_tower.encoder.layers)
        return (last if last >= 0 else layers + 1 + last) - 1

    def watch_vision(self) -> Vision:
        """Hooks on the vision tower that catch what methods may ask for; the caller removes them."""
        raise NotImplementedError


class Llava(Family):
    """LLaVA-1.5 and its like: one square image, one raster of patches."""

    def watch_vision(self) -> Vision:
        keeps_cls = self.model.config.vision_feature_select_strategy == "full"
        return PatchVision(self.vision_tower, self.vision_layer, keeps_cls=keeps_cls)


class LlavaNext(Family):
    """LLaVA-NeXT: a base crop, then the unpadded raster of the other crops with a newline token after every row."""

    def watch_vision(self) -> Vision:
        if self.model.config.vision_feature_select_strategy != "default":
            raise ValueError("LLaVA-NeXT is supported with vision_feature_select_strategy='default' only")
        return CropVision(self.core, self.vision_layer)


class Qwen2VL(Family):
    """Qwen2-VL: images and videos of any size, patches merged 2x2, positions with three axes."""

    mrope = True

    @property
    def vision_tower(self) -> Any:
        return self.core.visual

    @property
    def projector(self) -> Any:
        return self.core.visual.merger

    @property
    def vision_layer(self) -> int:
        return len(self.vision_tower.blocks) - 1

    def watch_vision(self) -> Vision:
        return MergedVision(self.vision_tower, self.vision_layer)


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: as Qwen2-VL, with windowed attention in all but a few vision blocks."""

    @property
    def vision_layer(self) -> int:
        # Windowed blocks cannot compare tokens of different windows: the last block with full attention can.
        return int(max(self.vision_tower.fullatt_block_indexes))


FAMILIES: dict[type[PreTrainedModel], type[Family]] = {
    LlavaForConditionalGeneration: Llava,
    LlavaNextForConditionalGeneration: LlavaNext,
    Qwen2VLForConditionalGeneration: Qwen2VL,
    Qwen2_5_VLForConditionalGeneration: Qwen25VL,
}


def family_of(model: Any) -> Family:
    """The parts of a supported model.

    Raises:
        TypeError: the model's class is not supported; the message names those that are.
    """
    for model_class, family in FAMILIES.items():
        if isinstance(model, model_class):
            return family(model)
    supported = ", ".join(model_class.__name__ for model_class in FAMILIES)
    raise TypeError(f"{type(model).__name__} is not supported. Supported models: {supported}")


def _check_decoder(language_model: Any, layers: Any) -> None:
    attention = layers[0].self_attn if hasattr(layers[0], "self_attn") else None
    if not hasattr(attention, "q_proj") or hasattr(attention, "q_norm") or not hasattr(language_model, "rotary_emb"):
        raise TypeError(
            f"the language model {type(language_model).__name__} is not supported: its decoder layers must be "
            "Llama-like (Llama, Vicuna, Mistral, Qwen2), with q_proj, k_proj and rotary embeddings"
        )
    if getattr(language_model.config, "sliding_window", None) is not None:
        raise TypeError("sliding-window attention is not supported: set the text config's sliding_window to None")
