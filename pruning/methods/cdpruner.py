"""CDPruner: tokens that are relevant to the question and unlike one another, by a determinantal point process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, PreTrainedTokenizerBase

from pruning.choosing.base import KeepPerImage
from pruning.choosing.merging import wide
from pruning.choosing.selection import by_groups, cosine_similarity, greedy_dpp
from pruning.engine.seen import Observed
from pruning.models.sizes import Sizes

SMALLEST_RELEVANCE = 1e-6


@dataclass
class CDPruner(KeepPerImage):
    """Zhang et al., arXiv 2506.10967, section 3.

    The kernel is the cosine similarity of the projected visual tokens, times the relevance of both tokens to the
    question; a greedy search picks the tokens of the largest determinant. Positions are re-packed. Relevance is scaled
    to 0..1 for every image on its own.

    With `clip`, relevance is the authors': the negated cosine of patches and question in CLIP's joint space (patches
    that are least like the question there are those with the global information). Models hold only the vision half of
    CLIP, so the other half is passed in.

    Fallback: without `clip`, and for all towers other than CLIP (Qwen, SigLIP), relevance is the cosine of the
    projected tokens with the mean embedding of the prompt's text in the language model, not negated. It is ours, not
    the authors': say so where numbers are reported.

    Parameters:
        keep: tokens kept of every image.
        clip: the CLIP model whose vision tower the model has, on the same device; its text tower and projections run.
            Its name or folder will do where nothing is chosen yet: `experiments.asking.clip.loaded` loads it.
        questions: with `clip`, for every sample of the batch the ids of its question for CLIP's text tower, int64
            `[M, L]`: M segments of at most 77 tokens, each with its start and end token. `segments` makes them.
    """

    name: ClassVar[str] = "cdpruner"
    label: ClassVar[str] = "CDPruner"
    told: ClassVar[tuple[str, ...]] = ("questions",)

    clip: CLIPModel | str | None = field(default=None, repr=False)
    questions: Sequence[Tensor] = field(default=(), repr=False)

    def for_questions(self, questions: Sequence[Mapping[str, Any]]) -> Self:
        if not isinstance(self.clip, CLIPModel):
            return self
        return replace(self, questions=segments(self.clip, [question["question"] for question in questions]))

    def written(self) -> dict[str, Any]:
        clip = self.clip if self.clip is None or isinstance(self.clip, str) else self.clip.config.name_or_path
        return super().written() | {"clip": clip}

    def select(self, seen: Observed) -> Tensor:
        if isinstance(self.clip, str):
            raise ValueError(f"clip={self.clip!r} is only a name: pass the loaded CLIPModel")
        relevance_BN = text_relevance(seen) if self.clip is None else self._clip_relevance(self.clip, seen)
        return conditional_dpp(seen.projected_BND, relevance_BN, self.keep)

    def _clip_relevance(self, clip: CLIPModel, seen: Observed) -> Tensor:
        if len(self.questions) <= max(seen.samples):
            raise ValueError("questions has fewer samples than the batch: give CLIP's token ids for every sample")
        if not hasattr(seen.family.vision_tower, "post_layernorm"):
            raise ValueError("clip needs a model with CLIP's vision tower: leave clip unset")
        width = seen.features_BNC.shape[-1]
        if clip.vision_model.config.hidden_size != width:
            raise ValueError(
                f"clip has features {clip.vision_model.config.hidden_size} wide, the model's vision tower {width}: "
                "pass the CLIP model whose vision tower it has"
            )
        embedded = {
            sample: clip.text_projection(clip.text_model(self.questions[sample].to(seen.device)).pooler_output)
            for sample in sorted(set(seen.samples))
        }
        normed_BNC = clip.vision_model.post_layernorm(seen.features_BNC.to(clip.dtype))
        patches_BNE = clip.visual_projection(normed_BNC)
        return torch.stack(
            [
                clip_relevance(patches_NE, embedded[sample])
                for patches_NE, sample in zip(patches_BNE, seen.samples, strict=True)
            ]
        )

    def choosing_flops(self, sizes: Sizes) -> int:
        count, keep = sizes.visual_tokens, self.keep
        similarity = 2 * count**2 * sizes.hidden
        picking = 2 * count * keep * (keep - 1) // 2
        if self.clip is None:
            return similarity + picking + 2 * (sizes.text_tokens + 2 * count) * sizes.hidden
        config = CLIPConfig.from_pretrained(self.clip) if isinstance(self.clip, str) else self.clip.config
        text, width = config.text_config, config.projection_dim
        # The question is taken as one full segment: its length is the caller's.
        length = text.max_position_embeddings
        layer = 2 * length * (4 * text.hidden_size**2 + 2 * text.hidden_size * text.intermediate_size)
        layer += 4 * length**2 * text.hidden_size
        encoding = text.num_hidden_layers * layer + 2 * text.hidden_size * width
        return similarity + picking + encoding + 2 * count * width * (sizes.vision_width + 1)


def clip_relevance(patches_NE: Tensor, texts_ME: Tensor) -> Tensor:
    """Negated cosine `[..., N]` of patches `[..., N, E]` and M text segments in CLIP's space, mean over segments."""
    return -(normalize(wide(patches_NE), dim=-1) @ normalize(wide(texts_ME), dim=-1).mT).mean(dim=-1)


def text_relevance(seen: Observed) -> Tensor:
    """Cosine `[B, N]` of the projected tokens and the mean embedding of their prompt's text."""
    weights_BL = wide(seen.text_BL.to(seen.text_embeddings_BLD.dtype))
    mean_B1D = weights_BL[:, None] @ wide(seen.text_embeddings_BLD)  # the sum: a cosine does not see its length
    return (normalize(mean_B1D, dim=-1) @ normalize(wide(seen.projected_BND), dim=-1).mT)[:, 0]


def conditional_dpp(tokens_BND: Tensor, relevance_BN: Tensor, keep: int) -> Tensor:
    """The tokens of the greedy conditional DPP: int64 `[B, keep]`, ascending."""

    def pick(group_BND: Tensor, relevance_BN: Tensor) -> Tensor:
        return greedy_dpp(conditional_kernel(group_BND, relevance_BN), keep)

    return by_groups(pick, tokens_BND.shape[1] ** 2, tokens_BND, relevance_BN).sort(dim=1).values


def conditional_kernel(tokens_BND: Tensor, relevance_BN: Tensor) -> Tensor:
    """Cosine of every pair of tokens times the relevance of both, scaled to 0..1 an image: `[B, N, N]`."""
    low_B1, high_B1 = relevance_BN.amin(dim=1, keepdim=True), relevance_BN.amax(dim=1, keepdim=True)
    scaled_BN = (relevance_BN - low_B1 + SMALLEST_RELEVANCE) / (high_B1 - low_B1)
    scaled_BN = torch.where(high_B1 > low_B1, scaled_BN, 1)
    return cosine_similarity(tokens_BND).mul_(scaled_BN[:, :, None]).mul_(scaled_BN[:, None])


def segments(clip: CLIPModel, questions: Sequence[str]) -> list[Tensor]:
    """For every question its ids for CLIP's text tower: int64 `[M, L]`, M segments of at most 77 tokens each.

    Longer questions than one segment are cut; every segment has its own start and end token. The last one is filled up
    with end tokens, as CLIP pads: its causal text tower reads a segment at the first of them.
    """
    tokenizer = _tokenizer(clip.config.name_or_path)
    room = clip.config.text_config.max_position_embeddings - 2
    found = []
    for question in questions:
        ids = tokenizer(question, add_special_tokens=False)["input_ids"]
        pieces = [ids[start : start + room] for start in range(0, max(len(ids), 1), room)]
        length = max(len(piece) for piece in pieces) + 1
        start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
        found.append(torch.tensor([[start, *piece, *[end] * (length - len(piece))] for piece in pieces]))
    return found


@lru_cache(maxsize=1)
def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(name)
