"""How a preset has a model's images and prompts made, where that is not what its saved processor does."""

from typing import Any

from transformers import LlavaImageProcessorPil, PreTrainedConfig, ProcessorMixin

from experiments.named.presets import Image, ModelError, System

# In front of every prompt of LLaVA's evaluation (conversation vicuna_v1).
SYSTEM = {
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions."
}


def handled(processor: ProcessorMixin, config: PreTrainedConfig, image: Image, system: System) -> ProcessorMixin:
    """The processor of the model with this config, changed in place to what a preset's `image` and `system` say.

    Raises:
        ModelError: `image` is "pad" for a model that takes images of other shapes.
    """
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
