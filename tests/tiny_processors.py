"""Processors for tiny random models: a tokenizer of whole words and the family's own image processor."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2VLImageProcessorPil,
)

from experiments.asking.processors import QwenImageProcessor

WORDS = [
    "USER",
    ":",
    "ASSISTANT",
    "what",
    "colour",
    "is",
    "the",
    "circle",
    "?",
    "red",
    "blue",
    "no",
    "yes",
    "and",
    "two",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}USER :{% for part in message.content %}"
    "{% if part.type == 'image' %} IMAGE {% else %} {{ part.text }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)


def processor_for(config: PreTrainedConfig) -> ProcessorMixin:
    """A processor that fits a tiny Llava, LlavaNext, Qwen2-VL or Qwen2.5-VL model of this config."""
    vision = config.vision_config
    if config.model_type in ("qwen2_vl", "qwen2_5_vl"):
        image, places = "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>"
        special = {
            config.image_token_id: image,
            config.video_token_id: "<|video_pad|>",
            config.vision_start_token_id: "<|vision_start|>",
            config.vision_end_token_id: "<|vision_end|>",
        }
        pixels = Qwen2VLImageProcessorPil(
            patch_size=vision.patch_size,
            temporal_patch_size=vision.temporal_patch_size,
            merge_size=vision.spatial_merge_size,
            size={"shortest_edge": 4 * 4 * vision.patch_size**2, "longest_edge": 8 * 8 * vision.patch_size**2},
        )
        tokenizer = _tokenizer(config.get_text_config().vocab_size, special)
        return QwenImageProcessor(pixels, tokenizer, chat_template=CHAT_TEMPLATE.replace("IMAGE", places))
    side = {"height": vision.image_size, "width": vision.image_size}
    options = {
        "patch_size": vision.patch_size,
        "vision_feature_select_strategy": config.vision_feature_select_strategy,
        "num_additional_image_tokens": 1,
        "chat_template": CHAT_TEMPLATE.replace("IMAGE", "<image>"),
    }
    tokenizer = _tokenizer(config.get_text_config().vocab_size, {config.image_token_id: "<image>"})
    if config.model_type == "llava_next":
        pixels = LlavaNextImageProcessorPil(
            size={"shortest_edge": vision.image_size}, crop_size=side, image_grid_pinpoints=config.image_grid_pinpoints
        )
        return LlavaNextProcessor(pixels, tokenizer, **options)
    return LlavaProcessor(CLIPImageProcessorPil(size=side, do_center_crop=False), tokenizer, **options)


def save_tiny(model: PreTrainedModel, folder: Path) -> Path:
    """Save a tiny model with a processor that fits it, as `experiments.asking.models.load` expects a folder."""
    model.save_pretrained(folder)
    processor_for(model.config).save_pretrained(folder)
    return folder


def _tokenizer(vocab_size: int, special: dict[int, str]) -> PreTrainedTokenizerFast:
    """Words around the special tokens, whose ids the model's config decides."""
    names = iter(["<unk>", "<pad>", "</s>", *WORDS])
    vocabulary = {special.get(number) or next(names, f"word{number}"): number for number in range(vocab_size)}
    assert all(word in vocabulary for word in WORDS), "the model's vocabulary is too small for these words"
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        additional_special_tokens=list(special.values()),
    )
