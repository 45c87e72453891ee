"""What a family of models is: where its parts are, and what its configuration says. One file for each, beside this."""

from collections.abc import Sequence
from typing import Any, ClassVar

from transformers import PretrainedConfig, PreTrainedModel

from pruning.models.layer_flops import Images
from pruning.models.vision import Vision


class Family:
    """The parts of one model of the family; class methods tell what needs a configuration alone.

    Attributes:
        model_class: of transformers.
        model_type: of its configuration.
        mrope: whether positions have three axes. Re-packing has no meaning there: original positions are kept.
        has_glimpse: whether GlimpsePrune describes it.
        core: the module that merges text and images and calls the language model.
        vision_tower: the image encoder; projector: what maps its features to the width of the language model.
        language_model: the decoder without its head; layers: its decoder layers.
        vision_layer: 0-based layer of the vision tower that methods observe.
        image_token_id, video_token_id: placeholders in the prompt; None where the family has none.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    model_type: ClassVar[str]
    mrope: ClassVar[bool] = False
    has_glimpse: ClassVar[bool] = False

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.core: Any = model.model
        self.language_model: Any = self.core.language_model
        self.layers: Any = self.language_model.layers
        self.image_token_id: int = model.config.image_token_id
        self.video_token_id: int | None = getattr(model.config, "video_token_id", None)
        self.vision_layer: int = self.observed_layers(model.config) - 1
        _check_decoder(self.language_model, self.layers)

    @property
    def placeholder_ids(self) -> dict[str, int]:
        """Token ids of the placeholders of an image and, where the family takes videos, of a video."""
        videos = {} if self.video_token_id is None else {"video": self.video_token_id}
        return {"image": self.image_token_id, **videos}

    @property
    def vision_tower(self) -> Any:
        raise NotImplementedError

    @property
    def projector(self) -> Any:
        raise NotImplementedError

    def watch_vision(self) -> Vision:
        """Hooks on the vision tower that catch what methods may ask for; the caller removes them."""
        raise NotImplementedError

    @classmethod
    def vision_sizes(cls, vision: PretrainedConfig) -> tuple[int, int, int]:
        """Width, heads and layers of the vision tower."""
        raise NotImplementedError

    @classmethod
    def observed_layers(cls, config: PretrainedConfig) -> int:
        """Layers of the vision tower up to the one whose features methods see."""
        raise NotImplementedError

    @classmethod
    def full_attention_blocks(cls, config: PretrainedConfig) -> Sequence[int]:
        """0-based blocks of the vision tower up to the observed one in which patches see their whole image or frame."""
        return range(cls.observed_layers(config))

    @classmethod
    def has_cls(cls, config: PretrainedConfig) -> bool:
        """Whether the vision tower puts a [CLS] in front of the patches."""
        return False

    @classmethod
    def projects_alone(cls, config: PretrainedConfig) -> bool:
        """Whether the projector maps the features that methods see, token by token."""
        return False

    @classmethod
    def tokens_behind(cls, config: PretrainedConfig, visual_tokens: int) -> int:
        """Tokens that the vision tower computes on for so many visual tokens.

        Raises:
            ValueError: that depends on the images.
        """
        raise NotImplementedError

    @classmethod
    def vision_tokens(cls, config: PretrainedConfig, images: Images) -> int:
        """Tokens that the vision tower computes on for all images of a sample, [CLS] included, before any merging."""
        raise NotImplementedError

    @classmethod
    def images_of(cls, config: PretrainedConfig, inputs: dict[str, Any]) -> list[list[Any]]:
        """The images of each sample of a batch whose prompts hold one image or one video each, as FLOPs need them."""
        raise NotImplementedError

    @classmethod
    def check_flops(cls, config: PretrainedConfig) -> None:
        """Raises TypeError where the formulas do not describe the model's vision tower."""

    @classmethod
    def vision_flops(cls, config: PretrainedConfig, images: Images) -> int:
        """Vision tower of all images of a sample, without the projector."""
        raise NotImplementedError

    @classmethod
    def projector_flops(cls, config: PretrainedConfig, images: Images) -> int:
        """The projector over every visual token: pruning comes after it."""
        raise NotImplementedError


def _check_decoder(language_model: Any, layers: Any) -> None:
    attention = layers[0].self_attn if hasattr(layers[0], "self_attn") else None
    if not hasattr(attention, "q_proj") or hasattr(attention, "q_norm") or not hasattr(language_model, "rotary_emb"):
        raise TypeError(
            f"the language model {type(language_model).__name__} is not supported: its decoder layers must be "
            "Llama-like (Llama, Vicuna, Mistral, Qwen2), with q_proj, k_proj and rotary embeddings"
        )
    if getattr(language_model.config, "sliding_window", None) is not None:
        raise TypeError("sliding-window attention is not supported: set the text config's sliding_window to None")
