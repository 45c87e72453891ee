"""Exact FLOPs of a vision-language model's prefill and decode steps, by formula from its configuration.

One multiply-add is 2 FLOPs. Counted is what `torch.utils.flop_counter.FlopCounterMode` counts: matrix products,
convolutions and attention products (dense: the causal half is not subtracted); element-wise work is not. Every layer
that runs is counted, also the last vision layers of a model that reads an earlier one.

`convention=` switches the decoder (and vision) terms to the formulas that papers of this field print, so that their
numbers can be reproduced; everything this project reports is `exact`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pruning.models.families import family_of_config
from pruning.models.family import Family
from pruning.models.layer_flops import Images, crops_of, decoder_layer_flops, vision_layer_flops

CONVENTIONS = ("exact", "pyramiddrop", "vispruner", "sparsevlm", "divprune")


@dataclass(frozen=True)
class Flops:
    """FLOPs of one sample: four parts of the prefill, and one decode step after it."""

    vision: int
    projector: int
    decoder: int
    choosing: int
    per_decoded_token: int

    @property
    def total(self) -> int:
        """The whole prefill: vision tower + projector + decoder + what the method spends on choosing."""
        return self.vision + self.projector + self.decoder + self.choosing


def count(
    config: Any,
    visual_tokens_per_layer: Sequence[int],
    text_tokens: int,
    images: Images = (1,),
    *,
    choosing: int = 0,
    logits: int = 1,
    convention: str = "exact",
) -> Flops:
    """FLOPs of one sample.

    Args:
        config: configuration of the whole model (`model.config`).
        visual_tokens_per_layer: visual tokens entering each decoder layer; they are also what its KV cache holds.
        text_tokens: prompt tokens that are not visual.
        images: per image, the crops that go through the vision tower (LLaVA: 1, LLaVA-NeXT: tiles + 1) or its patch
            grid (frames, height, width) before merging (Qwen2-VL, Qwen2.5-VL); see `images_of`.
        choosing: FLOPs the method itself spends during prefill (`method.choosing_flops(sizes)`).
        logits: positions that go through the output head; `generate` asks for the last one only.
        convention: `exact`, or the formula of a paper: `pyramiddrop` (visual tokens only, multiply-adds),
            `vispruner` (visual tokens only, plus the vision layers), `sparsevlm` (whole sequence, multiply-adds),
            `divprune` (whole sequence, two-matrix MLP, multiply-adds). None of them knows GQA, heads or decoding.

    Raises:
        TypeError: the model's family is not supported.
        ValueError: unknown convention, or a list whose length is not the number of decoder layers.
    """
    family = check_family(config)
    text = config.get_text_config()
    if len(visual_tokens_per_layer) != text.num_hidden_layers:
        raise ValueError(
            f"visual_tokens_per_layer has {len(visual_tokens_per_layer)} entries; "
            f"the model has {text.num_hidden_layers} decoder layers"
        )
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention {convention!r}; known: {', '.join(CONVENTIONS)}")
    if convention != "exact":
        return published(config, visual_tokens_per_layer, text_tokens, images, convention)
    lengths = [visual + text_tokens for visual in visual_tokens_per_layer]
    head = 2 * text.hidden_size * text.vocab_size
    return Flops(
        vision=family.vision_flops(config, images),
        projector=family.projector_flops(config, images),
        decoder=sum(decoder_layer_flops(text, length, length) for length in lengths) + logits * head,
        choosing=choosing,
        per_decoded_token=sum(decoder_layer_flops(text, 1, length + 1) for length in lengths) + head,
    )


def check_family(config: Any) -> type[Family]:
    """The model's family; TypeError if there is none, or its vision tower is none these formulas describe."""
    family = family_of_config(config)
    family.check_flops(config)
    return family


def vision_tokens(config: Any, images: Images) -> int:
    """Tokens that the vision tower computes on for all images of a sample, [CLS] included, before any merging."""
    return family_of_config(config).vision_tokens(config, images)


def images_of(config: Any, inputs: dict[str, Any]) -> list[list[Any]]:
    """The `images` argument of `count` for each sample of a batch whose prompts hold one image or one video each.

    Reads what the processor returned: `image_grid_thw` or `video_grid_thw` [B, 3] (Qwen), `image_sizes` [B, 2]
    (LLaVA-NeXT), else `pixel_values` [B, ...] (LLaVA).
    """
    return check_family(config).images_of(config, inputs)


def published(
    config: Any,
    visual_tokens_per_layer: Sequence[int],
    text_tokens: int,
    images: Images,
    convention: str,
) -> Flops:
    """The decoder formulas found in papers: per layer `4 n d^2 + 2 n^2 d + (2 or 3) n d m` multiply-adds.

    PyramidDrop (arXiv 2410.17247), VisPruner (arXiv 2412.01818; twice that, plus its ViT: 0.381 T for a CLIP-L/14-336
    crop), SparseVLM (arXiv 2410.04417) and DivPrune (arXiv 2503.02175). Projector and choosing are left out by all.
    """
    text, vision = config.get_text_config(), config.vision_config
    extra = text_tokens if convention in ("sparsevlm", "divprune") else 0
    matrices = 2 if convention == "divprune" else 3
    hidden, inner = text.hidden_size, text.intermediate_size
    decoder = sum(
        4 * n * hidden**2 + 2 * n**2 * hidden + matrices * n * hidden * inner
        for n in (visual + extra for visual in visual_tokens_per_layer)
    )
    tower = 0
    if convention == "vispruner":
        decoder *= 2
        if not config.model_type.startswith("llava"):
            raise ValueError("the vispruner convention describes CLIP vision towers (LLaVA, LLaVA-NeXT) only")
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        layer = vision_layer_flops(tokens, vision.hidden_size, 2 * vision.intermediate_size, tokens**2)
        tower = crops_of(images) * vision.num_hidden_layers * layer
    return Flops(vision=tower, projector=0, decoder=decoder, choosing=0, per_decoded_token=0)
