"""Many questions about one image in one training sequence.

Each question is a block that sees the image and itself, at the positions it would have alone behind the image; so every
block trains exactly the single-question prompt, and the image is read once for all of them.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from experiments.testbed.questions import TYPES, Question, balanced, caption
from experiments.testbed.scenes import Scene
from experiments.testbed.sentences import in_full
from experiments.testbed.vocabulary import GRID, WORD_ID
from pruning.glimpse.losses import box_mask

QUESTION_TOKENS = 14  # "is the red circle left or right of the blue square ?" ASSISTANT: answer
SENTENCE_TOKENS = 26  # the same question, "describe ." ASSISTANT: "the red circle is left of the blue square ."
CAPTION_TOKENS = 52
IGNORED = -100
# Comparing and counting are learned last by far.
SHARES = {"existence": 0.08, "attribute": 0.1, "relation": 0.4, "counting": 0.28, "reading": 0.08, "small_object": 0.06}
PROMPT_HEAD = (WORD_ID["<s>"], WORD_ID["USER:"])


@dataclass(frozen=True)
class Layout:
    """The blocks behind an image: questions with a short answer, questions answered in a sentence, and one caption."""

    questions: int
    sentences: int = 0

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Number and length of the blocks of each kind, in order."""
        return [(self.questions, QUESTION_TOKENS), (self.sentences, SENTENCE_TOKENS), (1, CAPTION_TOKENS)]

    @property
    def tokens(self) -> int:
        """Tokens of all blocks."""
        return sum(number * length for number, length in self.spans)

    @property
    def offsets(self) -> Tensor:
        """Position of each packed token within its own block, int64 `[tokens]`."""
        return torch.cat([torch.arange(length).repeat(number) for number, length in self.spans])


@dataclass(frozen=True)
class Packed:
    """`tokens`, `labels` int64 [B, T]: the blocks of each scene in turn; a label is the token that follows.

    `types` int64 [B, Q] says of which type each question with a short answer is, as its index in `TYPES`, and
    `evidence` bool [B, Q, GRID * GRID] which patches its boxes cover.
    """

    tokens: Tensor
    labels: Tensor
    types: Tensor
    evidence: Tensor


def _block(question: Question, length: int) -> tuple[list[int], list[int]]:
    asked = [WORD_ID[word] for word in question.text.split()] + [WORD_ID["ASSISTANT:"]]
    answer = [WORD_ID[word] for word in question.answer.split()] + [WORD_ID["</s>"]]
    tokens = asked + answer[:-1]
    labels = [IGNORED] * (len(asked) - 1) + answer
    if len(tokens) > length:
        raise ValueError(f"{question.text!r} with its answer takes {len(tokens)} tokens; a block has {length}.")
    spare = length - len(tokens)
    return tokens + [WORD_ID["<pad>"]] * spare, labels + [IGNORED] * spare


def draw_questions(scene: Scene, count: int, rng: np.random.Generator) -> list[Question]:
    """`count` questions, types drawn by SHARES among those the scene can answer, answers balanced within a type."""
    askable = {name: found for name, ask in TYPES.items() if (found := ask(scene))}
    shares = np.array([SHARES[name] for name in askable])
    drawn = rng.choice(list(askable), size=count, p=shares / shares.sum())
    return [balanced(askable[name], rng) for name in drawn]


def pack(scenes: list[Scene], layout: Layout, rng: np.random.Generator) -> Packed:
    """The blocks of each scene; all scenes get the same layout."""
    index = {name: i for i, name in enumerate(TYPES)}
    tokens, labels, types, evidence = [], [], [], []
    for scene in scenes:
        questions = draw_questions(scene, layout.questions, rng)
        types.append([index[question.type] for question in questions])
        evidence.append(torch.stack([box_mask(question.boxes, GRID, GRID).flatten() for question in questions]))
        blocks = [_block(question, QUESTION_TOKENS) for question in questions]
        if layout.sentences:
            sentences = draw_questions(scene, layout.sentences, rng)
            blocks += [_block(in_full(question), SENTENCE_TOKENS) for question in sentences]
        blocks.append(_block(caption(scene), CAPTION_TOKENS))
        tokens.append([token for block in blocks for token in block[0]])
        labels.append([label for block in blocks for label in block[1]])
    return Packed(torch.tensor(tokens), torch.tensor(labels), torch.tensor(types), torch.stack(evidence))


@dataclass
class Pointing:
    """Attention to visual tokens that is to lie on the evidence, as that of a model which was taught to ground does.

    Attributes:
        layers: decoder layers, of each of which the first head points.
        from_BQ: int64, the token in the block of each question with a short answer that the answer follows.
        logits: filled in by `packed_attention`, for each layer `[B, Q, M]` before the softmax over M visual tokens.
    """

    layers: tuple[int, ...]
    from_BQ: Tensor
    logits: list[Tensor] = field(default_factory=list)


def packed_attention(
    module: torch.nn.Module,
    query_BHSd: Tensor,
    key_BHSd: Tensor,
    value_BHSd: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    layout: Layout | None = None,
    pointing: Pointing | None = None,
    **unused: object,
) -> tuple[Tensor, None]:
    """Attention in which each block sees the prefix and itself, causally: O(S x (prefix + block)) instead of O(S x S).

    An attention function for transformers' AttentionInterface. The blocks of `layout` end the sequence; without one it
    is plain causal attention. Returns [B, S, H, d].
    """
    spans = [] if layout is None else [(number, length) for number, length in layout.spans if number]
    prefix = query_BHSd.shape[2] - (0 if layout is None else layout.tokens)
    prefix_key, prefix_value = key_BHSd[:, :, :prefix], value_BHSd[:, :, :prefix]
    parts = [_causal(query_BHSd[:, :, :prefix], prefix_key, prefix_value, scaling)]
    start = prefix
    for number, length in spans:
        span = slice(start, start + number * length)
        inner = [x[:, :, span].unflatten(2, (number, length)) for x in (query_BHSd, key_BHSd, value_BHSd)]
        parts.append(_block_attention(*inner, prefix_key, prefix_value, scaling))
        start = span.stop
    if pointing is not None and layout is not None and module.layer_idx in pointing.layers:
        asked_BQTd = query_BHSd[:, 0, prefix : prefix + layout.questions * QUESTION_TOKENS].unflatten(
            1, (-1, QUESTION_TOKENS)
        )
        pointer_BQd = torch.take_along_dim(asked_BQTd, pointing.from_BQ[..., None, None], 2)[:, :, 0]
        pointing.logits.append(pointer_BQd @ key_BHSd[:, 0, len(PROMPT_HEAD) : prefix].transpose(1, 2) * scaling)
    return torch.cat(parts, 2).transpose(1, 2), None


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    scores = query @ key.transpose(-1, -2) * scaling
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).triu(1)
    return scores.masked_fill(later, torch.finfo(scores.dtype).min).softmax(-1) @ value


def _block_attention(
    query_BHQTd: Tensor, key_BHQTd: Tensor, value_BHQTd: Tensor, key_BHPd: Tensor, value_BHPd: Tensor, scaling: float
) -> Tensor:
    """Queries of Q blocks over the prefix and their own block; [B, H, Q * T, d]."""
    length = query_BHQTd.shape[3]
    prefix = key_BHPd.shape[2]
    query = query_BHQTd * scaling
    hidden = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    own = query @ key_BHQTd.transpose(-1, -2)
    own = own.masked_fill(hidden, torch.finfo(own.dtype).min)
    shared = (query.flatten(2, 3) @ key_BHPd.transpose(-1, -2)).unflatten(2, query.shape[2:4])
    weights = torch.cat([shared, own], -1).softmax(-1)
    seen = (weights[..., :prefix].flatten(2, 3) @ value_BHPd).unflatten(2, query.shape[2:4])
    return (seen + weights[..., prefix:] @ value_BHQTd).flatten(2, 3)
