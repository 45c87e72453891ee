"""Tiny random models and inputs of every supported family, made on the spot.

Every factory returns `(model, inputs)`: float32, evaluation mode, greedy decoding that never meets an end token.
`prompts` says for every row of the batch how many images it has, or for Qwen as a word what: "ivi" is an image, a video
and an image. Rows are left-padded to the same length. The text is random but depends on the row, so that rows differ.
"""

import math

import torch
from torch import Tensor
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

IMAGE, VIDEO, PAD = 99, 98, 0
LAYERS = 6
TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": None,
    "eos_token_id": None,
}
CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 24,
    "patch_size": 4,
    "projection_dim": 16,
}
Built = tuple[PreTrainedModel, dict[str, Tensor]]
Prompts = tuple[int | str, ...]
PIXELS = {"i": "pixel_values", "v": "pixel_values_videos"}
GRIDS = {"i": "image_grid_thw", "v": "video_grid_thw"}


def tiny_llava(prompts: tuple[int, ...] = (1,), **options) -> Built:
    """LLaVA: 36 visual tokens an image (6x6), grouped-query Llama of 6 layers."""
    config = LlavaConfig(vision_config=CLIP, text_config={"model_type": "llama", **TEXT}, image_token_index=IMAGE)
    inputs = _text([[36] * images for images in prompts])
    if images := sum(prompts):
        inputs["pixel_values"] = _pixels(images, 3, 24, 24)
    return _ready(LlavaForConditionalGeneration, config, **options), inputs


def tiny_llava_next(prompts: tuple[int, ...] = (1,), **options) -> Built:
    """LLaVA-NeXT: images of 30x48 and 48x40 in turn, so that unpadding differs; 3x3 patches a crop."""
    vision = {**CLIP, "patch_size": 8}
    config = LlavaNextConfig(
        vision_config=vision,
        text_config={"model_type": "llama", **TEXT},
        image_token_index=IMAGE,
        image_grid_pinpoints=[[24, 48], [48, 24], [48, 48]],
    )
    # Crops and tokens: 9 of the base crop, then the unpadded 6x6 raster with a newline a row.
    kinds = [((30, 48), 5, 9 + 4 * 7), ((48, 40), 5, 9 + 6 * 7)]
    images = [kinds[number % 2] for number in range(sum(prompts))]
    lengths = iter(tokens for _, _, tokens in images)
    inputs = _text([[next(lengths) for _ in range(count)] for count in prompts])
    if images:
        inputs["pixel_values"] = _pixels(len(images), 5, 3, 24, 24)
        inputs["image_sizes"] = torch.tensor([size for size, _, _ in images])
    return _ready(LlavaNextForConditionalGeneration, config, **options), inputs


def tiny_qwen2_vl(prompts: Prompts = (1,), **options) -> Built:
    """Qwen2-VL: images of 8x12 and 6x4 patches in turn, merged 2x2 to 24 and 6 visual tokens; videos to 18 and 8."""
    vision = {"embed_dim": 16, "hidden_size": 32, "depth": 3, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    return _tiny_qwen(Qwen2VLConfig, Qwen2VLForConditionalGeneration, vision, prompts, options)


def tiny_qwen2_5_vl(prompts: Prompts = (1,), **options) -> Built:
    """Qwen2.5-VL: as Qwen2-VL, with windows of 2x2 merged tokens in all vision blocks but one."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": 32,
        "depth": 3,
        "num_heads": 2,
        "patch_size": 4,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    return _tiny_qwen(Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, vision, prompts, options)


FAMILIES = {
    "llava": tiny_llava,
    "llava_next": tiny_llava_next,
    "qwen2_vl": tiny_qwen2_vl,
    "qwen2_5_vl": tiny_qwen2_5_vl,
}


def contents(prompt: int | str) -> str:
    """The images (i) and videos (v) of a prompt in order."""
    return "i" * prompt if isinstance(prompt, int) else prompt


def take_row(inputs: dict[str, Tensor], prompts: Prompts, row: int) -> dict[str, Tensor]:
    """The inputs of one row of a batch alone, without its padding."""
    real = inputs["attention_mask"][row].bool()
    alone = {
        name: inputs[name][row : row + 1, real]
        for name in ("input_ids", "attention_mask", "mm_token_type_ids")
        if name in inputs
    }
    for kind in sorted(set(contents(prompts[row]))):
        first = "".join(map(contents, prompts[:row])).count(kind)
        images = slice(first, first + contents(prompts[row]).count(kind))
        for name in ("image_sizes", GRIDS[kind]):
            if name in inputs:
                alone[name] = inputs[name][images]
        if GRIDS[kind] in inputs:
            patches = inputs[GRIDS[kind]].prod(dim=1)
            images = slice(int(patches[: images.start].sum()), int(patches[: images.stop].sum()))
        alone[PIXELS[kind]] = inputs[PIXELS[kind]][images]
    return alone


def _tiny_qwen(config_class, model_class, vision: dict, prompts: Prompts, options: dict) -> Built:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]}
    config = config_class(
        vision_config=vision,
        text_config={**TEXT, "rope_parameters": rope},
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=96,
        vision_end_token_id=97,
    )
    sizes = {"i": [(1, 8, 12), (1, 6, 4)], "v": [(3, 4, 6), (2, 4, 4)]}
    grids: dict[str, list[tuple[int, int, int]]] = {"i": [], "v": []}
    rows: list[list[int]] = [[] for _ in prompts]
    for row, prompt in enumerate(prompts):
        for kind in contents(prompt):
            grid = sizes[kind][len(grids[kind]) % 2]
            grids[kind].append(grid)
            rows[row].append(math.prod(grid) // 4)
    inputs = _text(rows, [[VIDEO if kind == "v" else IMAGE for kind in contents(prompt)] for prompt in prompts])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == IMAGE).int() + 2 * (inputs["input_ids"] == VIDEO).int()
    for kind, found in grids.items():
        if found:
            inputs[PIXELS[kind]] = _pixels(sum(map(math.prod, found)), 3 * 2 * 4 * 4)
            inputs[GRIDS[kind]] = torch.tensor(found)
    return _ready(model_class, config, **options), inputs


def _text(rows: list[list[int]], placeholders: list[list[int]] | None = None) -> dict[str, Tensor]:
    """Left-padded prompts: text, then for every image its placeholders and more text."""
    generator = torch.Generator().manual_seed(1)
    sequences = []
    for number, images in enumerate(rows):
        pieces = [torch.randint(1, 90, (3 + number,), generator=generator)]
        for place, tokens in enumerate(images):
            placeholder = IMAGE if placeholders is None else placeholders[number][place]
            pieces += [torch.full((tokens,), placeholder), torch.randint(1, 90, (4,), generator=generator)]
        sequences.append(torch.cat(pieces))
    length = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(rows), length), PAD)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, length - len(sequence) :] = sequence
        mask[row, length - len(sequence) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _pixels(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def _ready(model_class, config, attention: str = "sdpa", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    model = model_class._from_config(config, attn_implementation=attention).eval()
    # The default initialisation is so small that attention is flat and all logits are alike.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.5 * parameter[0].numel() ** -0.5)
        model.lm_head.weight[[PAD, VIDEO, IMAGE]] = 0
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD
    return model
