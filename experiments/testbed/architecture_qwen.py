"""The second embedded model: a stock Qwen2_5_VLForConditionalGeneration of 2.5 million parameters."""

import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from experiments.testbed.architecture import DECODER_LAYERS, HEADS, WIDTH
from experiments.testbed.vocabulary import QWEN_PATCH, QWEN_WORD_ID, QWEN_WORDS

VISION_WIDTH = 96
VISION_HEADS = 3
VISION_LAYERS = 6
FULL_ATTENTION = [2, 5]  # vision layers that see the whole picture
WINDOW = 8 * QWEN_PATCH  # pixels: the other layers see 4 x 4 visual tokens


def build_config() -> Qwen2_5_VLConfig:
    """Qwen2.5-VL's layout in small; its decoder has the sizes of the first embedded model's."""
    vision = {
        "depth": VISION_LAYERS,
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 2 * VISION_WIDTH,
        "num_heads": VISION_HEADS,
        "patch_size": QWEN_PATCH,
        "window_size": WINDOW,
        "fullatt_block_indexes": FULL_ATTENTION,
        "out_hidden_size": WIDTH,
        "initializer_range": 0.04,
    }
    text = {
        "vocab_size": len(QWEN_WORDS),
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": DECODER_LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 1024,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
        "initializer_range": WIDTH**-0.5,
        "rms_norm_eps": 1e-5,
        "pad_token_id": QWEN_WORD_ID["<pad>"],
        "bos_token_id": QWEN_WORD_ID["<s>"],
        "eos_token_id": QWEN_WORD_ID["</s>"],
        "tie_word_embeddings": True,
    }
    return Qwen2_5_VLConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=QWEN_WORD_ID["<|image_pad|>"],
        video_token_id=QWEN_WORD_ID["<|video_pad|>"],
        vision_start_token_id=QWEN_WORD_ID["<|vision_start|>"],
        vision_end_token_id=QWEN_WORD_ID["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def build_model(llava: LlavaForConditionalGeneration, seed: int) -> Qwen2_5_VLForConditionalGeneration:
    """A new vision tower in front of the trained decoder of `llava`. float32, on the CPU.

    For text the two decoders compute the same: Qwen's biases start at 0 and its rotary embedding with three equal axes
    is Llama's. The words that only Qwen has keep their random embeddings.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(build_config())
    decoder = model.model.language_model
    trained = dict(llava.model.language_model.state_dict())
    shared_words: Tensor = trained.pop("embed_tokens.weight")
    missing, unexpected = decoder.load_state_dict(trained, strict=False)
    if unexpected or any(not name.endswith(("_proj.bias", "embed_tokens.weight")) for name in missing):
        raise ValueError(f"the decoders differ: missing {missing}, unexpected {unexpected}")
    with torch.no_grad():
        decoder.embed_tokens.weight[: len(shared_words)] = shared_words
        for name in missing:
            if name.endswith(".bias"):
                decoder.get_parameter(name).zero_()
    return model
