"""What a GlimpsePrune checkpoint says of itself, by the keys of the authors' config.json, and what they published."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from pruning.choosing import checks

REQUIRED = (
    "reduce_layer",
    "le_layers",
    "selected_visual_layers",
    "use_attention_logits",
    "attn_fuse_size",
    "visual_cond_size",
    "attn_fuse_num_heads",
)


@dataclass(frozen=True)
class GlimpseConfig:
    """Configuration of the glimpse token and the predictor.

    Attributes:
        reduce_layer: K, the 0-based decoder layer whose attention is read and behind which tokens leave.
        glimpse_layers: decoder layers, from 0 on, that have a row of the glimpse token's table: at least K + 1. Those
            behind K only serve in training, where nothing leaves; published checkpoints have one for every layer
            (`le_layers` lists them in the file).
        selected_visual_layers: what each predictor layer sees of the vision tower: 0-based blocks (Qwen2.5-VL), or
            CLIP's hidden states, of which number 0 are the embeddings (LLaVA).
        use_attention_logits: read the attention row before its softmax (Qwen2.5-VL) or its log-softmax (LLaVA).
        attn_fuse_size, visual_cond_size, attn_fuse_num_heads: width, width of the vision features and heads of the
            predictor.
        le_dropout_prob: dropout on the table in training.
    """

    reduce_layer: int
    glimpse_layers: int
    selected_visual_layers: tuple[int, ...]
    use_attention_logits: bool
    attn_fuse_size: int = 256
    visual_cond_size: int = 512
    attn_fuse_num_heads: int = 4
    le_dropout_prob: float = 0.1

    def __post_init__(self) -> None:
        checks.whole_number("reduce_layer", self.reduce_layer)
        checks.whole_number("glimpse_layers", self.glimpse_layers, minimum=self.reduce_layer + 1)
        checks.fraction("le_dropout_prob", self.le_dropout_prob, one=False)
        if len(self.selected_visual_layers) == 0:
            raise ValueError("selected_visual_layers is empty: name one layer of the vision tower per predictor layer")
        for layer in self.selected_visual_layers:
            checks.whole_number("every entry of selected_visual_layers", layer)
        for name in ("attn_fuse_size", "visual_cond_size", "attn_fuse_num_heads"):
            checks.whole_number(name, getattr(self, name), minimum=1)
        width = self.attn_fuse_size + self.visual_cond_size
        if width % (4 * self.attn_fuse_num_heads) or self.attn_fuse_size % self.attn_fuse_num_heads:
            raise ValueError(
                f"attn_fuse_num_heads={self.attn_fuse_num_heads} must divide attn_fuse_size={self.attn_fuse_size}, and "
                f"four times it attn_fuse_size + visual_cond_size={width}, for the two-dimensional rotary embedding"
            )

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """The configuration in a config.json, which may hold anything else besides.

        Raises:
            ValueError: a key is missing, or asks for a variant that is not supported.
        """
        missing = [key for key in REQUIRED if key not in given]
        if missing:
            raise ValueError(f"config.json lacks {', '.join(missing)}: it is not that of a GlimpsePrune checkpoint")
        layers = len(given["le_layers"])
        for key, supported in _fixed(given["reduce_layer"], layers).items():
            if key in given and given[key] != supported:
                raise ValueError(f"config.json has {key}={given[key]!r}; supported is {supported!r}")
        known = {key: given[key] for key in cls.__dataclass_fields__ if key in given}
        visual = tuple(given["selected_visual_layers"])
        return cls(**{**known, "glimpse_layers": layers, "selected_visual_layers": visual})

    def to_json(self) -> dict[str, Any]:
        """The content of a config.json that the authors' code and `from_json` understand."""
        own = {key: getattr(self, key) for key in self.__dataclass_fields__ if key != "glimpse_layers"}
        own["selected_visual_layers"] = list(self.selected_visual_layers)
        return own | _fixed(self.reduce_layer, self.glimpse_layers)


def _fixed(last: int, layers: int) -> dict[str, Any]:
    """Keys of the authors' variants that have one value here: one attention row, one token in every layer from 0 on."""
    return {
        "selected_layers": [last],
        "le_layers": list(range(layers)),
        "le_length": 1,
        "le_norm_type": "rmsnorm",
        "attn_fuse_type": "AttnFuserV1",
        "attn_fuse_hidden_act": "silu",
        "attn_fuse_global": True,
        "deep_supervision": False,
    }


class Published(NamedTuple):
    """The authors' setting for a model of this name on the hub."""

    model: str
    config: GlimpseConfig


QWEN_BLOCKS, CLIP_STATES = (31, 23, 15, 7), (23, 17, 11, 5)
PUBLISHED_CONFIGS = {
    "qwen2.5-vl-3b": Published("Qwen/Qwen2.5-VL-3B-Instruct", GlimpseConfig(23, 36, QWEN_BLOCKS, True)),
    "qwen2.5-vl-7b": Published("Qwen/Qwen2.5-VL-7B-Instruct", GlimpseConfig(18, 28, QWEN_BLOCKS, True)),
    "llava-1.5-7b": Published("llava-hf/llava-1.5-7b-hf", GlimpseConfig(21, 32, CLIP_STATES, False)),
    "llava-1.5-13b": Published("llava-hf/llava-1.5-13b-hf", GlimpseConfig(26, 40, CLIP_STATES, False)),
}
