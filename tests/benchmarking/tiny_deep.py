"""Models as deep as the published ones, with as many visual tokens and almost no width, saved with processors."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from tests.tiny_models import IMAGE, TEXT, VIDEO
from tests.tiny_processors import _tokenizer, processor_for

# As LLaVA-1.5's: a system message or none, the image in front of the words of the user.
TEMPLATE = (
    "{% for message in messages %}USER : {% for part in message.content %}{% if part.type == 'image' %}<image> "
    "{% endif %}{% endfor %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }} {% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT :{% endif %}"
)


def save_llava(folder: Path, layers: int = 32, seed: int = 0) -> Path:
    """576 visual tokens (24 x 24 of 14 pixels); decoder layers as a 7B (32) or 13B (40) model has them."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "image_size": 336,
        "patch_size": 14,
        "projection_dim": 8,
    }
    text = TEXT | {
        "num_hidden_layers": layers,
        "hidden_size": 16,
        "intermediate_size": 16,
        "max_position_embeddings": 2048,
    }
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlavaConfig(vision_config=vision, text_config={"model_type": "llama", **text}, image_token_index=IMAGE)
    model = _random(LlavaForConditionalGeneration, config, seed)
    size = {"height": 336, "width": 336}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=size),
        _tokenizer(100, {IMAGE: "<image>"}),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_qwen(folder: Path, layers: int = 28, seed: int = 0) -> Path:
    """Qwen2.5-VL with the decoder layers of 7B; images of up to 8 x 8 patches of 4 pixels, merged 2 x 2."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": 32,
        "depth": 4,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1, 3],
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    config = Qwen2_5_VLConfig(
        vision_config=vision,
        text_config={**TEXT, "num_hidden_layers": layers, "rope_parameters": rope},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=96,
        vision_end_token_id=97,
    )
    model = _random(Qwen2_5_VLForConditionalGeneration, config, seed)
    model.save_pretrained(folder)
    processor_for(model.config).save_pretrained(folder)
    return folder


def _random(model_class: Any, config: Any, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    model: PreTrainedModel = model_class._from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
        model.lm_head.weight[[0, VIDEO, IMAGE]] = 0
    # Most tokens end an answer, so that none is long.
    model.generation_config.eos_token_id = [token for token in range(2, 96) if token % 4]
    model.generation_config.pad_token_id = 0
    return model


def write_visual_cot(folder: Path, name: str, questions: int, sizes: tuple[tuple[int, int], ...] = ((40, 24),)) -> Path:
    """One of Visual-CoT's files with its images, of these sizes in turn; the folder."""
    rng, rows = np.random.default_rng(0), []
    for number in range(questions):
        width, height = sizes[number % len(sizes)]
        path = Path("cot") / name / f"{number}.png"
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(folder / path)
        ask = "Please provide the bounding box coordinate of the region that can help you answer the question better."
        question = f"<image>\nwhat colour is the circle {'? ' * (number % 3 + 1)}{ask}"
        rows.append(
            {
                "question_id": number,
                "image": [str(path), f"{path}###[0, 0, {width // 2}, {height // 2}]"],
                "conversations": [
                    {"from": "human", "value": question},
                    {"from": "gpt", "value": "[0.0, 0.0, 0.5, 0.5]"},
                    {"from": "human", "value": "<image>\n"},
                    {"from": "gpt", "value": f"red {number}"},
                ],
            }
        )
    (folder / "benchmark").mkdir(parents=True, exist_ok=True)
    (folder / "benchmark" / f"{name}.json").write_text(json.dumps(rows))
    return folder
