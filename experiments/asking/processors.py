"""The processor of a model: what turns images and text into the tensors it takes."""

from pathlib import Path
from typing import Any

from transformers import AutoProcessor, PreTrainedConfig, ProcessorMixin, Qwen2VLProcessor
from transformers.utils import is_torchvision_available


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


def load_processor(source: str | Path, config: PreTrainedConfig) -> ProcessorMixin:
    """The processor of the model with this config, saved in the folder or hub repository `source`.

    It needs no torchvision: images are then processed with PIL.

    Raises:
        OSError, ValueError: as transformers' from_pretrained.
    """
    if config.model_type in ("qwen2_vl", "qwen2_5_vl") and not is_torchvision_available():
        return QwenImageProcessor.from_pretrained(source)
    return AutoProcessor.from_pretrained(source)
