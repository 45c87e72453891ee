"""The embedded model: a stock LlavaForConditionalGeneration, built with some of its decoder layers and grown to all.

Depth expansion: new layers stand in front of the trained ones and behind them. They start as the identity, so growing
changes no output, and what the trained layers read of the image they go on reading, in the middle: as in large models,
whose first layers read the question and whose last ones barely look.
"""

import copy

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
)

from experiments.testbed.scenes import CANVAS
from experiments.testbed.vocabulary import PATCH, WORD_ID, WORDS

WIDTH = 128
HEADS = 4
VISION_LAYERS = 5
FIRST_LAYERS = 4  # of the decoder, before it grows
# Layers that it grows in front of all others and behind them: before `looks`, and after.
GROWTH = ((4, 0), (7, 1))
DECODER_LAYERS = FIRST_LAYERS + sum(in_front + behind for in_front, behind in GROWTH)


def build_config() -> LlavaConfig:
    """LLaVA-1.5's layout in small: features of the last vision layer but one, [CLS] dropped, two-layer projector."""
    vision = CLIPVisionConfig(
        image_size=CANVAS,
        patch_size=PATCH,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=VISION_LAYERS,
        num_attention_heads=HEADS,
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=FIRST_LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        initializer_range=WIDTH**-0.5,
        rms_norm_eps=1e-5,
        pad_token_id=WORD_ID["<pad>"],
        bos_token_id=WORD_ID["<s>"],
        eos_token_id=WORD_ID["</s>"],
        tie_word_embeddings=True,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=WORD_ID["<image>"],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(CANVAS // PATCH) ** 2,
        tie_word_embeddings=True,
    )


def build_model(seed: int) -> LlavaForConditionalGeneration:
    """The model with random weights; the same seed gives the same weights. float32, on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(build_config())


def learned_layers(model: LlavaForConditionalGeneration | Qwen2_5_VLForConditionalGeneration) -> list[torch.nn.Module]:
    """The decoder layers that are not the identity, as growing leaves them."""
    layers = model.model.language_model.layers
    return [layer for layer in layers if layer.self_attn.o_proj.weight.any() or layer.mlp.down_proj.weight.any()]


def grow(model: LlavaForConditionalGeneration, in_front: int, behind: int) -> None:
    """Put new decoder layers in front of all others and behind them, in place.

    Each is a copy of a layer that is there, in turn, with its two output projections at zero: stock layers that leave
    every hidden state as it is until training moves them.
    """
    decoder = model.model.language_model
    trained = list(decoder.layers)
    new = []
    for index in range(in_front + behind):
        # Attention reads its sizes and its kernel from the decoder's own configuration, which stays one object.
        layer = copy.deepcopy(trained[index % len(trained)], {id(decoder.config): decoder.config})
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
        torch.nn.init.zeros_(layer.mlp.down_proj.weight)
        new.append(layer)
    decoder.layers = torch.nn.ModuleList([*new[:in_front], *trained, *new[in_front:]])
    for index, layer in enumerate(decoder.layers):
        layer.self_attn.layer_idx = index
    decoder.config.num_hidden_layers = len(decoder.layers)
