"""The processor of a model: what turns images and text into the tensors it takes."""

from pathlib import Path
from typing import Any

from transformers import AutoProcessor, LlavaImageProcessorPil, PreTrainedConfig, ProcessorMixin, Qwen2VLProcessor
from transformers.utils import is_torchvision_available

from experiments.named.presets import Image, ModelError, System

# In front of every prompt of LLaVA's evaluation (conversation vicuna_v1).
SYSTEM = {
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions."
}


class QwenImageProcessor(Qwen2VLProcessor):
    """The processor of Qwen2-VL and Qwen2.5-VL without its video half, which is all that needs torchvision."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        # Past Qwen2VLProcessor, which insists on a video processor.
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def to_dict(self) -> dict[str, Any]:
        """As Qwen2.5-VL's own class would save it: AutoProcessor finds that one, where torchvision is installed."""
        saved = super().to_dict()
        shared = ("image_mean", "image_std", "size", "patch_size", "temporal_patch_size", "merge_size")
        video = {name: saved["image_processor"][name] for name in shared}
        video["video_processor_type"] = "Qwen2VLVideoProcessor"
        return saved | {"video_processor": video, "processor_class": "Qwen2_5_VLProcessor"}


def load_processor(
    source: str | Path, config: PreTrainedConfig, image: Image = "crop", system: System = "none"
) -> ProcessorMixin:
    """The processor of the model with this config, saved in the folder or hub repository `source`.

    It needs no torchvision: images are then processed with PIL. `image` and `system` are those of a preset
    (`experiments.named.presets.Preset`).

    Raises:
        OSError, ValueError: as transformers' from_pretrained.
        ModelError: `image` is "pad" for a model that takes images of other shapes.
    """
    if config.model_type in ("qwen2_vl", "qwen2_5_vl") and not is_torchvision_available():
        processor: ProcessorMixin = QwenImageProcessor.from_pretrained(source)
    else:
        processor = AutoProcessor.from_pretrained(source)
    if image == "pad":
        if config.model_type != "llava":
            raise ModelError(f"image: pad is LLaVA-1.5's; a model of type {config.model_type!r} takes image: crop")
        processor.image_processor = padded(processor.image_processor)
    if system != "none":
        # A constant in front of the template: every prompt has it, whoever renders it.
        processor.chat_template = f"{SYSTEM[system]} {processor.chat_template}"
    return processor


def padded(image_processor: Any) -> LlavaImageProcessorPil:
    """The same image processor, but it pads to a square, in the colour of the mean, before it resizes.

    Sizes and normalisation stay. Resizing and cropping a square to one size cut nothing off.
    """
    same = image_processor.to_dict()
    side = same.get("crop_size") or same["size"]
    named = {name: same[name] for name in ("image_mean", "image_std", "rescale_factor", "resample") if name in same}
    size = {"height": side["height"], "width": side["width"]}
    return LlavaImageProcessorPil(do_pad=True, size=size, crop_size=size, **named)
