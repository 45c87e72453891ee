"""The phases of training the second embedded model, at two resolutions. Its decoder comes trained from the first one.

`vision`: the new tower learns to describe visual tokens in the decoder's words. `joint`: everything, on pixels, with
which the decoder gets used to positions with three axes. Each batch is of one resolution.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_cu_seqlens, get_vision_position_ids, get_vision_window_index

from experiments.testbed import packing
from experiments.testbed.architecture import learned_layers
from experiments.testbed.architecture_qwen import WINDOW
from experiments.testbed.packing import Layout
from experiments.testbed.phases import (
    PRESENCE,
    STEPS,
    Batch,
    Measures,
    answer_loss,
    describe_loss,
    described,
    packed,
    presence,
)
from experiments.testbed.scenes import CANVAS, Scene, render, sample_scene
from experiments.testbed.vocabulary import QWEN_MERGE, QWEN_PATCH, QWEN_WORD_ID, build_qwen_processor

RESOLUTIONS = (CANVAS, CANVAS * 2 // 3, CANVAS // 3)  # pixels a side: 144, 64 and 16 visual tokens
TOKEN = QWEN_PATCH * QWEN_MERGE  # pixels
PROMPT_HEAD = ("<s>", "USER:", "<|vision_start|>")
PROMPT_TAIL = ("<|vision_end|>",)
EQUAL_WINDOWS = "flash_equal_windows"  # with "flash" in its name it gets all windows in one call


def equal_windows(
    module: nn.Module,
    query_1HSd: Tensor,
    key_1HSd: Tensor,
    value_1HSd: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    max_length_q: int = 0,
    **unused: object,
) -> tuple[Tensor, None]:
    """Attention within windows that all have `max_length_q` tokens, as one batch of plain products; [1, S, H, d].

    An attention function for transformers' AttentionInterface, called as flash attention is.
    """
    query, key, value = (
        x[0].unflatten(1, (-1, max_length_q)).transpose(0, 1) for x in (query_1HSd, key_1HSd, value_1HSd)
    )
    seen_WHLd = (query * scaling @ key.transpose(-1, -2)).softmax(-1) @ value
    return seen_WHLd.transpose(1, 2).flatten(0, 1).unsqueeze(0), None


def pictures(scenes: list[Scene], side: int) -> Batch:
    """Scenes rendered, resized and cut into patches by the model's own processor, and how the tower is to read them.

    `pixels` float32 [B, patches, values]; the rest is what the tower would otherwise work out from `grid_thw`.
    """
    images = [render(scene).resize((side, side)) for scene in scenes]
    seen = build_qwen_processor().image_processor(images, return_tensors="pt")
    grids = seen["image_grid_thw"]
    window_index, cu_window_seqlens = get_vision_window_index(grids, QWEN_MERGE, WINDOW, QWEN_PATCH)
    return {
        "pixels": seen["pixel_values"].unflatten(0, (len(scenes), -1)),
        "grid_thw": grids,
        "position_ids": get_vision_position_ids(grids, QWEN_MERGE),
        "cu_seqlens": get_vision_cu_seqlens(grids),
        "window_index": window_index,
        "cu_window_seqlens": cu_window_seqlens,
    }


def encode(model: Qwen2_5_VLForConditionalGeneration, batch: Batch) -> tuple[Tensor, Tensor]:
    """Visual tokens [B, N, D] and the means of their patches before the merger [B, N, C], in raster order."""
    images, patches, _ = batch["pixels"].shape
    names = ("grid_thw", "position_ids", "cu_seqlens", "window_index", "cu_window_seqlens")
    seen = model.model.visual(
        batch["pixels"].flatten(0, 1),
        **{name: batch[name] for name in names},
        max_seqlen=patches,
        max_window_seqlen=(WINDOW // QWEN_PATCH) ** 2,
    )
    in_windows = seen.last_hidden_state.unflatten(0, (-1, QWEN_MERGE**2)).mean(1)
    before_merger = in_windows[batch["window_index"].argsort()]
    return seen.pooler_output.unflatten(0, (images, -1)), before_merger.unflatten(0, (images, -1))


def prompt(model: Qwen2_5_VLForConditionalGeneration, visual_BND: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """What stands in front of the packed questions, embedded [B, P, D], and the positions of all [3, B, P + T]."""
    size, tokens, _ = visual_BND.shape
    device, grid = visual_BND.device, round(tokens**0.5)
    ends = torch.tensor([QWEN_WORD_ID[word] for word in (*PROMPT_HEAD, *PROMPT_TAIL)], device=device).expand(size, -1)
    ends_BED = model.model.language_model.embed_tokens(ends)
    start = len(PROMPT_HEAD)
    prefix = torch.cat([ends_BED[:, :start], visual_BND.to(ends_BED.dtype), ends_BED[:, start:]], 1)
    index = torch.arange(tokens, device=device)
    visual_at = start + torch.stack([torch.zeros_like(index), index // grid, index % grid])
    behind = torch.cat([torch.arange(len(PROMPT_TAIL)), len(PROMPT_TAIL) + layout.offsets]).to(device)
    text_at = (start + grid + behind).expand(3, -1)
    head_at = torch.arange(start, device=device).expand(3, -1)
    positions = torch.cat([head_at, visual_at, text_at], 1)[:, None].expand(3, size, -1)
    return prefix, positions


def _word_table(model: Qwen2_5_VLForConditionalGeneration) -> Tensor:
    return model.model.language_model.embed_tokens.weight.detach().float()


@dataclass
class Vision:
    """The tower, on pixels: visual tokens described in words, and the mean of its last layer names the contents."""

    model: Qwen2_5_VLForConditionalGeneration
    batch_size: int = 32
    sharpness: float = 8.0
    name: str = "vision"

    def __post_init__(self) -> None:
        width = self.model.config.vision_config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            head = nn.Linear(width, PRESENCE)
        self.naming_head = head.to(self.model.device)

    def draw(self, rng: np.random.Generator) -> Batch:
        side = RESOLUTIONS[int(rng.integers(len(RESOLUTIONS)))]
        scenes = [sample_scene(rng) for _ in range(self.batch_size)]
        return described(scenes, side // TOKEN) | pictures(scenes, side) | {"presence": presence(scenes)}

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        projected, before_merger = encode(self.model, batch)
        dense, measures = describe_loss(projected.float(), batch, _word_table(self.model), self.sharpness)
        named = self.naming_head(before_merger.mean(1)).float()
        naming = functional.binary_cross_entropy_with_logits(named, batch["presence"])
        correct = (named > 0) == (batch["presence"] > 0.5)
        return dense + naming, measures | {"mean_right": correct.float().mean()}

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        parts: list[tuple[str, nn.Module]] = [("tower", self.model.model.visual), ("naming_head", self.naming_head)]
        return [(f"{name}.{n}", p) for name, part in parts for n, p in part.named_parameters()]

    def layers(self) -> list[nn.Module]:
        return list(self.model.model.visual.blocks)


@dataclass
class Joint:
    """All that was learned but the word table, on pixels.

    The decoder's layers that are the identity stay so: those in front act on embeddings of a small norm, and an update
    of the usual size there moves all that the layers behind them look for.
    """

    model: Qwen2_5_VLForConditionalGeneration
    batch_size: int = 16
    layout: Layout = STEPS
    name: str = "joint"

    def draw(self, rng: np.random.Generator) -> Batch:
        side = RESOLUTIONS[int(rng.integers(len(RESOLUTIONS)))]
        scenes = packing.draw_scenes(self.batch_size, rng, list(self.layout.shares))
        shown = described(scenes, side // TOKEN) | pictures(scenes, side)
        return shown | packed(scenes, self.layout, rng)

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        projected, _ = encode(self.model, batch)
        dense, measures = describe_loss(projected.float(), batch, _word_table(self.model), 8.0)
        prefix, positions = prompt(self.model, projected, self.layout)
        answering, answered = answer_loss(self.model, prefix, positions, batch, self.layout)
        return answering + 0.1 * dense, measures | answered

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        learned = {id(parameter) for layer in learned_layers(self.model) for parameter in layer.parameters()}
        idle = {id(p) for layer in self.model.model.language_model.layers for p in layer.parameters()} - learned
        return [(n, p) for n, p in self.model.named_parameters() if "embed_tokens" not in n and id(p) not in idle]

    def layers(self) -> list[nn.Module]:
        return [*self.model.model.visual.blocks, *self.model.model.language_model.layers]
