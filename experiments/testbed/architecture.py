"""The embedded model: a stock LlavaForConditionalGeneration of 2.7 million parameters."""

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from experiments.testbed.scenes import CANVAS
from experiments.testbed.vocabulary import PATCH, WORD_ID, WORDS

WIDTH = 128
HEADS = 4
VISION_LAYERS = 5
DECODER_LAYERS = 8


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
        num_hidden_layers=DECODER_LAYERS,
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
