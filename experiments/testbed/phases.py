"""The three phases of training the embedded model, in the order LLaVA itself is made.

`words`: the decoder learns to answer from described patches, no pixels. `vision`: the tower and the projector learn to
describe patches in the decoder's words, and [CLS] to name what is in the image. `joint`: all of it, on pixels.
A phase draws batches (in worker processes) and turns a batch into a loss and the measures that are logged.
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
from experiments.testbed.packing import Layout, Pointing
from experiments.testbed.questions import TYPES
from experiments.testbed.scenes import CHARACTERS, COLOURS, SHAPES, Scene, render, sample_scene, thinned
from experiments.testbed.vocabulary import BACKGROUND, GRID, WORD_ID, build_processor

Batch = dict[str, Tensor]
Measures = dict[str, Tensor]
Answering = LlavaForConditionalGeneration | Qwen2_5_VLForConditionalGeneration
PRESENCE = len(SHAPES) * len(COLOURS) + len(CHARACTERS) + len(COLOURS)
PATCHES = GRID * GRID
LAYOUT = Layout(questions=20, sentences=3)
POINTING_LAYERS = (3, 4, 5)  # in the middle of the decoder
POINTING_WEIGHT = 0.2


class Phase(Protocol):
    """What the training loop needs of a phase."""

    name: str

    def draw(self, rng: np.random.Generator) -> Batch: ...
    def loss(self, batch: Batch) -> tuple[Tensor, Measures]: ...
    def parameters(self) -> list[tuple[str, nn.Parameter]]: ...


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
        "evidence": blocks.evidence,
    }


def choose_patches(foreground_BN: Tensor, centre_BN: Tensor, count: int) -> Tensor:
    """A random subset of `count` patches, objects preferred and their centres first; ascending int64 [B, count]."""
    preferred = foreground_BN * 0.6 + centre_BN * 0.5
    return (torch.rand(foreground_BN.shape) + preferred).topk(count, 1).indices.sort(1).values


def answer_loss(
    model: Answering,
    prefix_BPD: Tensor,
    positions: Tensor,
    batch: Batch,
    layout: Layout,
    pointing: Pointing | None = None,
) -> tuple[Tensor, Measures]:
    """Cross-entropy of the packed answers behind an embedded prefix, which holds the visual tokens.

    `positions`, int64 [..., B, P + T], are those of the prefix and of the packed text.
    """
    language_model = model.model.language_model
    text = language_model.embed_tokens(batch["tokens"])
    inputs = torch.cat([prefix_BPD.to(text.dtype), text], 1)
    hidden = language_model(
        inputs_embeds=inputs, position_ids=positions, use_cache=False, layout=layout, pointing=pointing
    ).last_hidden_state
    logits = model.lm_head(hidden[:, prefix_BPD.shape[1] :]).float()
    loss = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=packing.IGNORED)
    wrong = (logits.argmax(-1) != batch["labels"]) & (batch["labels"] != packing.IGNORED)
    return loss, right_by_type(wrong, batch["types"], layout)


def llava_answer_loss(
    model: LlavaForConditionalGeneration,
    visual_BMD: Tensor,
    kept_BM: Tensor,
    repacked_B: Tensor,
    batch: Batch,
    layout: Layout,
) -> tuple[Tensor, Measures]:
    """`answer_loss` given the visual tokens `kept_BM` of PATCHES, behind the head of LLaVA's prompt.

    Where `repacked_B` the positions close up, as after pruning before the decoder; elsewhere tokens keep their own.
    """
    size, kept = kept_BM.shape
    device = visual_BMD.device
    head = torch.tensor(packing.PROMPT_HEAD, device=device).expand(size, -1)
    prefix = torch.cat([model.model.language_model.embed_tokens(head), visual_BMD], 1)
    repacked = repacked_B[:, None]
    visual_at = torch.where(repacked, torch.arange(kept, device=device), kept_BM)
    text_at = torch.where(repacked, kept, PATCHES) + layout.offsets.to(device)
    positions = torch.cat([torch.arange(2, device=device).expand(size, 2), visual_at + 2, text_at + 2], 1)
    asked_BQT = batch["labels"][:, : layout.questions * packing.QUESTION_TOKENS].unflatten(1, (layout.questions, -1))
    pointing = Pointing(POINTING_LAYERS, (asked_BQT != packing.IGNORED).int().argmax(2))
    loss, measures = answer_loss(model, prefix, positions, batch, layout, pointing)
    evidence_BQM = batch["evidence"].gather(2, kept_BM[:, None].expand(-1, layout.questions, -1))
    off, right = pointing_loss(torch.stack(pointing.logits).float(), evidence_BQM)
    return loss + POINTING_WEIGHT * off, measures | {"pointing": right}


def pointing_loss(logits_LBQM: Tensor, evidence_BQM: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of pointing evenly at what is there of the evidence, and how often the strongest token is of it."""
    covered_BQ = evidence_BQM.sum(2)
    aim_BQM = evidence_BQM / covered_BQ.clamp(min=1)[..., None]
    off_LBQ = -(logits_LBQM.log_softmax(-1) * aim_BQM).sum(-1)
    strongest_LBQ1 = logits_LBQM.argmax(-1, keepdim=True)
    right_LBQ = evidence_BQM.expand_as(logits_LBQM).gather(-1, strongest_LBQ1)[..., 0]
    asked = (covered_BQ > 0).float()
    weight = asked.sum() * len(logits_LBQM)
    return (off_LBQ * asked).sum() / weight, (right_LBQ * asked).sum() / weight


def right_by_type(wrong_BT: Tensor, types_BQ: Tensor, layout: Layout) -> Measures:
    """Share of the questions of each type, of the sentences and of the captions whose every answer token is right."""
    counts = [number * length for number, length in layout.spans]
    questions, sentences, captions = wrong_BT.split(counts, dim=1)
    right = ~questions.unflatten(1, (-1, packing.QUESTION_TOKENS)).any(-1)
    measures = {}
    for index, name in enumerate(TYPES):
        asked = types_BQ == index
        measures[name] = (right & asked).sum() / asked.sum()
    if layout.sentences:
        wrong_sentences = sentences.unflatten(1, (-1, packing.SENTENCE_TOKENS)).any(-1)
        measures["sentence"] = (~wrong_sentences).float().mean()
    return measures | {"caption": (~captions.any(-1)).float().mean()}


@dataclass
class Words:
    """Decoder alone, on described patches with noise. The word table stays as it was drawn, for `vision` aims at it."""

    model: LlavaForConditionalGeneration
    batch_size: int = 32
    layout: Layout = LAYOUT
    kept: int = 40
    noise: float = 0.05
    name: str = "words"

    def draw(self, rng: np.random.Generator) -> Batch:
        scenes = [sample_scene(rng) for _ in range(self.batch_size)]
        return described(scenes) | packed(scenes, self.layout, rng)

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        foreground = (batch["words"][..., 0] != WORD_ID[BACKGROUND]).float()
        kept = choose_patches(foreground, batch["centre"], self.kept)
        table = self.model.model.language_model.embed_tokens.weight.detach()
        shown = embed(batch["words"], batch["centre"], batch["place"], table)
        visual = shown.gather(1, kept.unsqueeze(-1).expand(-1, -1, shown.shape[-1]))
        visual = visual + self.noise * torch.randn_like(visual)
        repacked = torch.rand(len(kept), device=kept.device) < 0.5
        return llava_answer_loss(self.model, visual, kept, repacked, batch, self.layout)

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [(n, p) for n, p in self.model.model.language_model.named_parameters() if "embed_tokens" not in n]


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
        self.cls_heads = nn.ModuleList([nn.Linear(width, PRESENCE), nn.Linear(width, PRESENCE)]).to(self.model.device)

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


@dataclass
class Joint:
    """Everything, on pixels. Part of the batches drop patches, mostly background: shorter and more varied.

    Where few patches stay, few objects do: what is left of a picture when only the evidence is.
    """

    model: LlavaForConditionalGeneration
    batch_size: int = 32
    layout: Layout = LAYOUT
    kept: tuple[int, ...] = (PATCHES, 48, 16)
    name: str = "joint"

    def draw(self, rng: np.random.Generator) -> Batch:
        scenes = [sample_scene(rng) for _ in range(self.batch_size)]
        kept = self.kept[int(rng.integers(len(self.kept)))]
        if kept < PATCHES / 4:
            scenes = [thinned(scene, rng) for scene in scenes]
        batch = described(scenes) | packed(scenes, self.layout, rng)
        return batch | {"pixels": pixels_of(scenes), "kept": torch.tensor(kept)}

    def loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        model = self.model.model
        hidden = model.vision_tower(batch["pixels"], output_hidden_states=True).hidden_states
        projected = model.multi_modal_projector(hidden[self.model.config.vision_feature_layer][:, 1:])
        table = model.language_model.embed_tokens.weight.detach().float()
        dense, measures = describe_loss(projected.float(), batch, table, 8.0)
        foreground = (batch["words"][..., 0] != WORD_ID[BACKGROUND]).float()
        kept = choose_patches(foreground, batch["centre"], int(batch["kept"]))
        visual = projected.gather(1, kept.unsqueeze(-1).expand(-1, -1, projected.shape[-1]))
        repacked = torch.rand(len(kept), device=kept.device) < 0.5
        answering, answered = llava_answer_loss(self.model, visual, kept, repacked, batch, self.layout)
        return answering + 0.1 * dense, measures | answered

    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        return list(self.model.named_parameters())
