"""The phases of training the embedded model, in the order LLaVA itself is made.

`words`: a shallow decoder learns to answer questions with one look from described patches, no pixels; then it grows.
`looks`: those with several looks too. `chains` and `steps`: scenes that can be asked for the longest of them, beside
questions about what these look for on the way; then the decoder grows again. `vision`: the tower and the projector
learn to describe patches in the decoder's words, and [CLS] to name what is in the image. A phase draws batches (in
worker processes) and turns a batch into a loss and the measures that are logged.

Every image is whole, and no loss looks at attention: nothing here prepares the model for pruning.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration, Qwen2_5_VLForConditionalGeneration

from experiments.testbed import packing
from experiments.testbed.descriptions import GROUPS, NOTHING, describe, embed, stack
from experiments.testbed.packing import Blocks, Layout
from experiments.testbed.questions import TRAINED
from experiments.testbed.scenes import CHARACTERS, COLOURS, SHAPES, Scene, render, sample_scene
from experiments.testbed.vocabulary import BACKGROUND, GRID, WORD_ID, build_processor

Batch = dict[str, Tensor]
Measures = dict[str, Tensor]
Answering = LlavaForConditionalGeneration | Qwen2_5_VLForConditionalGeneration
PRESENCE = len(SHAPES) * len(COLOURS) + len(CHARACTERS) + len(COLOURS)
PATCHES = GRID * GRID

# What is learned last is asked most.
SHORT = {
    "existence": 16,
    "attribute": 12,
    "carrier": 20,
    "counting": 24,
    "reading": 10,
    "small_object": 4,
    "where": 14,
}
ONE_LOOK = Layout((Blocks(12, 10, SHORT), Blocks(8, 14, {"relation": 1})))
ALL_LOOKS = Layout(
    (
        Blocks(8, 10, SHORT),
        Blocks(6, 15, {"relation": 25, "link": 40, "locate": 35}),
        Blocks(7, 20, {"chain": 55, "relay": 45}),
    )
)
CHAINS = Layout(
    (
        Blocks(6, 10, SHORT),
        Blocks(4, 15, {"relation": 25, "link": 40, "locate": 35}),
        Blocks(9, 20, {"chain": 30, "relay": 30, "follow": 40}),
    )
)
STEPS = Layout(
    (
        Blocks(5, 10, SHORT),
        Blocks(6, 15, {"relation": 15, "link": 20, "locate": 20, "without": 45}),
        Blocks(11, 20, {"chain": 20, "relay": 20, "follow": 20, "gather": 40}),
    )
)


class Phase(Protocol):
    """What the training loop needs of a phase."""

    name: str

    def draw(self, rng: np.random.Generator) -> Batch: ...
    def loss(self, batch: Batch) -> tuple[Tensor, Measures]: ...
    def parameters(self) -> list[tuple[str, nn.Parameter]]: ...
    def layers(self) -> list[nn.Module]: ...


def pixels_of(scenes: list[Scene]) -> Tensor:
    """Rendered scenes as the model's pixel values, float32 [B, 3, CANVAS, CANVAS]; same arithmetic as the processor."""
    pixels = build_processor().image_processor
    images = torch.from_numpy(np.stack([np.asarray(render(scene)) for scene in scenes])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (pixels.image_mean, pixels.image_std))
    return (images.float() * pixels.rescale_factor - mean) / std


def described(scenes: list[Scene], grid: int = GRID) -> Batch:
    """The patches of a raster of grid x grid, described in words."""
    words, centre, place = stack([describe(scene, grid) for scene in scenes])
    return {"words": words, "centre": centre, "place": place}


def packed(scenes: list[Scene], layout: Layout, rng: np.random.Generator) -> Batch:
    """Questions about the scenes, see experiments/testbed/packing.py."""
    blocks = packing.pack(scenes, layout, rng)
    return {
        "tokens": blocks.tokens,
        "labels": blocks.labels,
        "types": blocks.types,
    }


def answer_loss(
    model: Answering, prefix_BPD: Tensor, positions: Tensor, batch: Batch, layout: Layout
) -> tuple[Tensor, Measures]:
    """Cross-entropy of the packed answers behind an embedded prefix, which holds the visual tokens.

    `positions`, int64 [..., B, P + T], are those of the prefix and of the packed text.
    """
    language_model = model.model.language_model
    text = language_model.embed_tokens(batch["tokens"])
    inputs = torch.cat([prefix_BPD.to(text.dtype), text], 1)
    hidden = language_model(
        inputs_embeds=inputs, position_ids=positions, use_cache=False, layout=layout
    ).last_hidden_state
    logits = model.lm_head(hidden[:, prefix_BPD.shape[1] :]).float()
    loss = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=packing.IGNORED)
    wrong = (logits.argmax(-1) != batch["labels"]) & (batch["labels"] != packing.IGNORED)
    return loss, right_by_type(wrong, batch["types"], layout)


def llava_answer_loss(
    model: LlavaForConditionalGeneration, visual_BND: Tensor, batch: Batch, layout: Layout
) -> tuple[Tensor, Measures]:
    """`answer_loss` given the visual tokens, behind the head of LLaVA's prompt."""
    size, device = len(visual_BND), visual_BND.device
    head = torch.tensor(packing.PROMPT_HEAD, device=device).expand(size, -1)
    prefix = torch.cat([model.model.language_model.embed_tokens(head), visual_BND], 1)
    behind = prefix.shape[1] + layout.offsets.to(device)
    positions = torch.cat([torch.arange(prefix.shape[1], device=device), behind]).expand(size, -1)
    return answer_loss(model, prefix, positions, batch, layout)


def right_by_type(wrong_BT: Tensor, types_BQ: Tensor, layout: Layout) -> Measures:
    """Share of the questions of each type, and of the captions, whose every answer token is right."""
    counts = [number * length for number, length in layout.spans]
    *questions, captions = wrong_BT.split(counts, dim=1)
    right = torch.cat(
        [
            ~wrong.unflatten(1, (blocks.number, blocks.tokens)).any(-1)
            for wrong, blocks in zip(questions, layout.questions, strict=True)
        ],
        dim=1,
    )
    measures = {}
    for name in layout.shares:
        asked = types_BQ == list(TRAINED).index(name)
        measures[name] = (right & asked).sum() / asked.sum()
    return measures | {"caption": (~captions.any(-1)).float().mean()}


@dataclass
class Words:
    """Decoder alone, on described patches with noise. The word table stays as it was drawn, for `vision` aims at it."""

    model: LlavaForConditionalGeneration
    name: str
    layout: Layout
    asked: tuple[str, ...]  # each scene can answer one of these
    batch_size: int = 32
    noise: float = 0.05

    def draw(self, rng: np.random.Generator) -> Batch:
        scenes = packing.draw_scenes(self.batch_size, rng, self.asked)
        return described(scenes) | packed(scenes, self.layout, rng)

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        table = self.model.model.language_model.embed_tokens.weight.detach()
        shown = embed(batch["words"], batch["centre"], batch["place"], table)
        return llava_answer_loss(self.model, shown + self.noise * torch.randn_like(shown), batch, self.layout)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.model.model.language_model.named_parameters() if "embed_tokens" not in n]

    def layers(self) -> list[nn.Module]:
        return list(self.model.model.language_model.layers)


def presence(scenes: list[Scene]) -> Tensor:
    """What [CLS] should name: (shape, colour) pairs, characters, the dot's colour; 0 or 1, float32 [B, PRESENCE]."""
    pairs = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    rows = [
        [float(any((o.shape, o.colour) == pair for o in scene.items)) for pair in pairs]
        + [float(any(o.character == c for o in scene.items)) for c in CHARACTERS]
        + [float(scene.dot.colour == c) for c in COLOURS]
        for scene in scenes
    ]
    return torch.tensor(rows)


@dataclass
class Vision:
    """Tower and projector, on pixels: patches described in words; [CLS] of the last two layers names the contents."""

    model: LlavaForConditionalGeneration
    batch_size: int = 64
    sharpness: float = 8.0
    name: str = "vision"

    def __post_init__(self) -> None:
        width = self.model.config.vision_config.hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            heads = nn.ModuleList([nn.Linear(width, PRESENCE), nn.Linear(width, PRESENCE)])
        self.cls_heads = heads.to(self.model.device)

    def draw(self, rng: np.random.Generator) -> Batch:
        scenes = [sample_scene(rng) for _ in range(self.batch_size)]
        return described(scenes) | {"pixels": pixels_of(scenes), "presence": presence(scenes)}

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        seen = self.model.model.vision_tower(batch["pixels"], output_hidden_states=True)
        hidden = seen.hidden_states[self.model.config.vision_feature_layer]
        projected = self.model.model.multi_modal_projector(hidden[:, 1:]).float()
        table = self.model.model.language_model.embed_tokens.weight.detach().float()
        dense, measures = describe_loss(projected, batch, table, self.sharpness)
        named = [
            head(state).float() for head, state in zip(self.cls_heads, (hidden[:, 0], seen.pooler_output), strict=True)
        ]
        naming = sum(functional.binary_cross_entropy_with_logits(x, batch["presence"]) for x in named)
        correct = ((named[0] > 0) == (batch["presence"] > 0.5)).float()
        return dense + naming, measures | {"cls_right": correct.mean()}

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        parts: list[tuple[str, nn.Module]] = [
            ("tower", self.model.model.vision_tower),
            ("projector", self.model.model.multi_modal_projector),
            ("cls_heads", self.cls_heads),
        ]
        return [(f"{name}.{n}", p) for name, part in parts for n, p in part.named_parameters()]

    def layers(self) -> list[nn.Module]:
        return list(self.model.model.vision_tower.encoder.layers)


def describe_loss(projected_BND: Tensor, batch: Batch, table_VD: Tensor, sharpness: float) -> tuple[Tensor, Measures]:
    """Squared distance to the described patch, plus cross-entropy within each group of words on object patches."""
    target = embed(batch["words"], batch["centre"], batch["place"], table_VD)
    words = batch["words"]
    foreground = words[..., 0] != WORD_ID[BACKGROUND]
    weight = torch.where(foreground, 1.0, 0.3)
    loss = ((projected_BND - target).pow(2).sum(-1) * weight).mean()
    measures = {}
    for index, (group, members) in enumerate(GROUPS.items()):
        ids = torch.tensor([WORD_ID[word] for word in members], device=words.device)
        word = torch.where(words[..., index] == NOTHING, WORD_ID[BACKGROUND], words[..., index])
        target_in_group = (word.unsqueeze(-1) == ids).long().argmax(-1)
        logits = sharpness * projected_BND @ table_VD[ids].T
        if group != "shape":  # no background word was added to an object's patch: absence is a score of 0.5
            logits = torch.cat([torch.full_like(logits[..., :1], sharpness * 0.5), logits[..., 1:]], -1)
        target_or_ignored = torch.where(foreground, target_in_group, packing.IGNORED)
        loss = loss + 0.3 * functional.cross_entropy(
            logits.flatten(0, 1), target_or_ignored.flatten(), ignore_index=packing.IGNORED
        )
        asked = foreground & (target_in_group > 0)
        measures[f"{group}_right"] = ((logits.argmax(-1) == target_in_group) & asked).sum() / asked.sum()
    return loss, measures
