"""What methods choose from, at the real sizes of LLaVA-1.5-7B and drawn at random, for experiments/benchmark_selection.

The objects are those of a real run: hooks on the projections of a CLIP tower, prompts, decoder layers. Only the weights
and the hidden states are random, and the decoder's layers are one layer under several numbers, which changes no time.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

import pruning
from pruning.choosing.base import InsideLLM, Method
from pruning.engine.seen import Observed, ObservedLayer, Prompt
from pruning.engine.tokens import Tokens
from pruning.glimpse.configuration import PUBLISHED_CONFIGS
from pruning.glimpse.modules import GlimpseModules
from pruning.models.clip_tower import PatchVision
from pruning.models.families import family_of
from pruning.models.family import Family
from pruning.models.projections import Projections
from pruning.models.vision import Image, raster_cells

LAYERS = 32
TEXT_IN_FRONT, TEXT_BEHIND = 35, 25
GLIMPSE = PUBLISHED_CONFIGS["llava-1.5-7b"].config
EVIDENCE = [[0.1, 0.1, 0.4, 0.5], [0.5, 0.6, 0.9, 0.8]]


@dataclass(frozen=True)
class Widths:
    """Of the vision tower and the decoder; the defaults are LLaVA-1.5-7B's."""

    vision: int = 1024
    vision_heads: int = 16
    vision_layers: int = 24
    hidden: int = 4096
    intermediate: int = 11008
    heads: int = 32


def decoder(device: torch.device, dtype: torch.dtype, widths: Widths) -> Family:
    """The parts of a LLaVA of these widths with one random decoder layer, which stands for all `LAYERS` of them."""
    vision = {
        "model_type": "clip_vision_model",
        "hidden_size": widths.vision,
        "intermediate_size": 4 * widths.vision,
        "num_attention_heads": widths.vision_heads,
        "num_hidden_layers": widths.vision_layers,
        "image_size": 336,
        "patch_size": 14,
    }
    text = {
        "model_type": "llama",
        "hidden_size": widths.hidden,
        "intermediate_size": widths.intermediate,
        "num_attention_heads": widths.heads,
        "num_key_value_heads": widths.heads,
        "num_hidden_layers": 1,
        "vocab_size": 8,
        "max_position_embeddings": 16384,
    }
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=7, dtype=dtype)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=dtype).eval()
    # What never runs (most of the tower) is never written to, and so takes no memory on a CPU.
    model = model.to_empty(device=device).requires_grad_(False)
    family = family_of(model)
    family.language_model.rotary_emb = LlamaRotaryEmbedding(config.text_config).to(device)
    torch.manual_seed(0)
    watched = [family.vision_tower.encoder.layers[layer].self_attn for layer in (family.vision_layer, -1)]
    for part in (family.language_model, family.projector, *watched):
        for parameter in part.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5)
            else:
                parameter.fill_(1.0 if part is family.language_model else 0.0)  # norms there, biases elsewhere
    family.layers = [family.layers[0]] * LAYERS
    return family


class Raster(PatchVision):
    """A CLIP tower behind images of `rows` x `columns` patches, square or not."""

    def __init__(self, family: Family, images: int, rows: int, columns: int) -> None:
        tower, layer = family.vision_tower, family.vision_layer
        super().__init__(tower, layer, keeps_cls=False)
        self.rows, self.columns = rows, columns
        for index in {layer, len(tower.encoder.layers) - 1}:  # the hooks on these projections catch what they compute
            attention = tower.encoder.layers[index].self_attn
            hidden = _random(family, images, rows * columns + 1, attention.embed_dim)
            attention.q_proj(hidden), attention.k_proj(hidden)
        self.output_BSC = _random(family, images, rows * columns + 1, attention.embed_dim)
        self.pixel_values = torch.rand(images, 3, 8, 8, device=hidden.device)
        self._further = [self.watch] * 2  # as many layers as any method looks at beside the observed one

    @cached_property
    def images(self) -> list[Image]:
        count, device = self.rows * self.columns, self.patches_BNC.device
        cells_N4 = raster_cells(self.rows, self.columns).to(device)
        index_BN = torch.arange(len(self.patches_BNC) * count, device=device).view(-1, count)
        grid = (self.rows, self.columns)
        return [Image(index_N, cells_N4, grid, (grid,)) for index_N in index_BN]

    @property
    def watched_blocks(self) -> list[Tensor]:
        return [self.by_token(self.output_BSC)] * len(GLIMPSE.selected_visual_layers)


class Inputs:
    """A batch of prompts with one image each: `TEXT_IN_FRONT` text tokens, the visual tokens, `TEXT_BEHIND` more."""

    def __init__(self, family: Family, images: int, rows: int, columns: int) -> None:
        torch.manual_seed(images * rows * columns)
        self.family, self.images, self.count = family, images, rows * columns
        length = TEXT_IN_FRONT + self.count + TEXT_BEHIND
        self.embeddings_BLD = _random(family, images, length, family.language_model.config.hidden_size)
        device = self.embeddings_BLD.device
        numbers_L = torch.arange(length, device=device) - TEXT_IN_FRONT
        numbers_BL = numbers_L.masked_fill((numbers_L < 0) | (numbers_L >= self.count), -1).expand(images, -1)
        self.tokens = Tokens(
            numbers_BL,
            torch.ones_like(numbers_BL, dtype=torch.bool),
            torch.arange(length, device=device).expand(1, images, -1),
            torch.full((1, images, 1), length, device=device),
            (self.count,) * images,
            (TEXT_IN_FRONT + TEXT_BEHIND,) * images,
        )
        self.prompt = Prompt(self.embeddings_BLD, self.tokens, None)
        self.slots_BN = (torch.arange(self.count, device=device) + TEXT_IN_FRONT).expand(images, -1)
        self._vision = Raster(family, images, rows, columns)

    def release(self) -> None:
        """Take the hooks off the tower."""
        self._vision.remove()

    def observed(self) -> Observed:
        """What a method in front of the language model sees; nothing of it has been worked out yet."""
        everything = range(self.images)
        return Observed(
            self.family,
            copy.copy(self._vision),
            self.prompt,
            everything,
            everything,
            self.slots_BN,
            not self.family.mrope,
        )

    @cached_property
    def _projected_BSD(self) -> tuple[Tensor, Tensor]:
        """Queries and keys of the layer in front of any choice."""
        return torch.randn_like(self.embeddings_BLD), torch.randn_like(self.embeddings_BLD)

    def observed_layers(self, method: InsideLLM) -> Iterator[tuple[ObservedLayer, list[int | None]]]:
        """What a method inside the language model sees in front of each of its layers, and what it shall keep there."""
        tokens, hidden_BSD = self.tokens, self.embeddings_BLD
        queries_BSD, keys_BSD = self._projected_BSD
        head_dim = self.family.layers[0].self_attn.head_dim
        stages = sorted(method.stages(self.count, LAYERS).items())
        for layer, count in stages:
            rotary = self.family.language_model.rotary_emb(hidden_BSD, tokens.positions_ABS[0])
            previous = Projections(queries_BSD, keys_BSD, rotary, head_dim)
            seen = ObservedLayer(
                family=self.family,
                vision=copy.copy(self._vision),
                layer=layer,
                hidden_BSD=hidden_BSD,
                tokens=tokens,
                prompt=self.prompt,
                full=self.tokens,
                copies=1,
                previous=previous,
                rotary=rotary,
            )
            counts = [count] * self.images
            yield seen, counts
            if layer == stages[-1][0]:
                return
            tokens, order_BT = tokens.prune(method.choose(seen, counts), method.positions == "repacked")
            rows_B1 = torch.arange(self.images, device=order_BT.device)[:, None]
            hidden_BSD, queries_BSD, keys_BSD = (
                values[rows_B1, order_BT] for values in (hidden_BSD, queries_BSD, keys_BSD)
            )


def untrained_glimpse(family: Family) -> GlimpseModules:
    """GlimpsePrune's modules for LLaVA-1.5-7B with random weights."""
    text = family.language_model.config
    modules = GlimpseModules(
        GLIMPSE, text.hidden_size, text.num_attention_heads, family.model.config.vision_config.hidden_size
    )
    return modules.to(family.model.device).eval()


def method_for(name: str, keep: int, num_visual: int, images: int, glimpse: GlimpseModules) -> Method | None:
    """The method that has `keep` visual tokens left in the end, other parameters as in its paper; None: it cannot.

    Inside the language model methods of several stages get there in equal shares (PyramidDrop, SparseVLM) or in their
    own steps (Sequential Prune). SparseVLM's merged tokens come on top; DART keeps the nearest count that it can.
    GlimpsePrune keeps a fixed share here, with modules that are not trained.
    """
    share = keep / num_visual
    boxes = [EVIDENCE] * images
    at_least = (keep + 0.5) / num_visual  # rounded down later
    parameters: dict[str, object] = {
        "oracle": {"keep": keep, "boxes": boxes},
        "oracle_inside": {"fixed_remain_ratio": at_least, "boxes": boxes},
        "glimpse": {"fixed_remain_ratio": at_least, "modules": glimpse},
        "fastv": {"r": 1 - share},
        "random_inside": {"r": 1 - share},
        "sequential_prune": {"r": 1 - share},
        "pyramiddrop": {"ratio": share ** (1 / 3)},
        "sparsevlm": {"share": share ** (1 / 3)},
        "dart": {"max_tokens": keep - 4},
        "vtw": {},
    }.get(name, {"keep": keep})
    if keep >= num_visual:
        return None
    return pruning.make(name, **parameters)


def _random(family: Family, *shape: int) -> Tensor:
    weight = family.layers[0].self_attn.q_proj.weight
    return torch.randn(*shape, device=weight.device, dtype=weight.dtype)
