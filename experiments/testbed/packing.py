"""Many questions about one image in one training sequence.

Each question is a block that sees the image and itself, at the positions it would have alone behind the image; so every
block trains exactly the single-question prompt, and the image is read once for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from experiments.testbed.questions import TRAINED, Question, balanced, caption
from experiments.testbed.scenes import Scene, sample_scene
from experiments.testbed.vocabulary import WORD_ID

CAPTION_TOKENS = 52
IGNORED = -100
NOT_ASKED = -1
PROMPT_HEAD = (WORD_ID["<s>"], WORD_ID["USER:"])


class Blocks(NamedTuple):
    """`number` blocks of `tokens` tokens, for questions of the types in `shares`; a type's share is how often."""

    number: int
    tokens: int
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Layout:
    """The blocks behind an image: questions with a short answer, and one caption.

    Questions of about one length share blocks of that length, so that little is padded.
    """

    questions: tuple[Blocks, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Number and length of the blocks of each kind, in order."""
        asked = [(blocks.number, blocks.tokens) for blocks in self.questions]
        return [*asked, (1, CAPTION_TOKENS)]

    @property
    def shares(self) -> dict[str, float]:
        """How often each type is asked, over all blocks; sums to the number of questions."""
        return {
            name: blocks.number * share / sum(blocks.shares.values())
            for blocks in self.questions
            for name, share in blocks.shares.items()
        }

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

    `types` int64 [B, Q] says of which type each question with a short answer is, as its index in `TRAINED`, or
    NOT_ASKED where the scene can answer none of the types of a block; nothing is learned there.
    """

    tokens: Tensor
    labels: Tensor
    types: Tensor


def _block(question: Question, length: int) -> tuple[list[int], list[int]]:
    asked = [WORD_ID[word] for word in question.text.split()] + [WORD_ID["ASSISTANT:"]]
    answer = [WORD_ID[word] for word in question.answer.split()] + [WORD_ID["</s>"]]
    tokens = asked + answer[:-1]
    labels = [IGNORED] * (len(asked) - 1) + answer
    if len(tokens) > length:
        raise ValueError(f"{question.text!r} with its answer takes {len(tokens)} tokens; a block has {length}.")
    spare = length - len(tokens)
    return tokens + [WORD_ID["<pad>"]] * spare, labels + [IGNORED] * spare


def _empty(length: int) -> tuple[list[int], list[int]]:
    return [WORD_ID["<pad>"]] * length, [IGNORED] * length


def draw_questions(scene: Scene, count: int, rng: np.random.Generator, shares: Mapping[str, float]) -> list[Question]:
    """`count` questions, or none where the scene can answer none of these types.

    Types are drawn by shares among those the scene can answer, answers balanced within a type.
    """
    askable = {name: found for name in shares if (found := TRAINED[name](scene))}
    if not askable:
        return []
    weights = np.array([shares[name] for name in askable])
    drawn = rng.choice(list(askable), size=count, p=weights / weights.sum())
    return [balanced(askable[name], rng) for name in drawn]


def draw_scenes(count: int, rng: np.random.Generator, asked: Sequence[str]) -> list[Scene]:
    """Scenes of which each can answer one of the types `asked`, in equal shares: chance alone gives few for some."""
    return [scene_for(TRAINED[asked[rng.integers(len(asked))]], rng) for _ in range(count)]


def scene_for(ask: Callable[[Scene], list[Question]], rng: np.random.Generator) -> Scene:
    """The first scene drawn that can answer."""
    while True:
        scene = sample_scene(rng)
        if ask(scene):
            return scene


def pack(scenes: list[Scene], layout: Layout, rng: np.random.Generator) -> Packed:
    """The blocks of each scene; all scenes get the same layout."""
    index = {name: i for i, name in enumerate(TRAINED)}
    tokens, labels, types = [], [], []
    for scene in scenes:
        blocks, kinds = [], []
        for number, length, shares in layout.questions:
            questions = draw_questions(scene, number, rng, shares)
            blocks += [_block(question, length) for question in questions] or [_empty(length)] * number
            kinds += [index[question.type] for question in questions] or [NOT_ASKED] * number
        blocks.append(_block(caption(scene), CAPTION_TOKENS))
        types.append(kinds)
        tokens.append([token for block in blocks for token in block[0]])
        labels.append([label for block in blocks for label in block[1]])
    return Packed(torch.tensor(tokens), torch.tensor(labels), torch.tensor(types))


def packed_attention(
    module: torch.nn.Module,
    query_BHSd: Tensor,
    key_BHSd: Tensor,
    value_BHSd: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    layout: Layout | None = None,
    **unused: object,
) -> tuple[Tensor, None]:
    """Attention in which each block sees the prefix and itself, causally: O(S x (prefix + block)) instead of O(S x S).

    An attention function for transformers' AttentionInterface. The blocks of `layout` end the sequence; without one it
    is plain causal attention. Returns [B, S, H, d].
    """
    spans = [] if layout is None else layout.spans
    prefix = query_BHSd.shape[2] - (0 if layout is None else layout.tokens)
    prefix_key, prefix_value = key_BHSd[:, :, :prefix], value_BHSd[:, :, :prefix]
    parts = [_causal(query_BHSd[:, :, :prefix], prefix_key, prefix_value, scaling)]
    start = prefix
    for number, length in spans:
        span = slice(start, start + number * length)
        inner = [x[:, :, span].unflatten(2, (number, length)) for x in (query_BHSd, key_BHSd, value_BHSd)]
        parts.append(_block_attention(*inner, prefix_key, prefix_value, scaling))
        start = span.stop
    return torch.cat(parts, 2).transpose(1, 2), None


def _hide(scores: Tensor, hidden: Tensor) -> Tensor:
    return scores.masked_fill(hidden, torch.finfo(scores.dtype).min)


def _causal(query_BHPd: Tensor, key_BHPd: Tensor, value_BHPd: Tensor, scaling: float) -> Tensor:
    scores = query_BHPd * scaling @ key_BHPd.transpose(-1, -2)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return _hide(scores, later).softmax(-1) @ value_BHPd


def _block_attention(
    query_BHQTd: Tensor, key_BHQTd: Tensor, value_BHQTd: Tensor, key_BHPd: Tensor, value_BHPd: Tensor, scaling: float
) -> Tensor:
    """Queries of Q blocks over the prefix and their own block; [B, H, Q * T, d]."""
    length, prefix = query_BHQTd.shape[3], key_BHPd.shape[2]
    query = query_BHQTd * scaling
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    own = _hide(query @ key_BHQTd.transpose(-1, -2), later)
    behind = (query.flatten(2, 3) @ key_BHPd.transpose(-1, -2)).unflatten(2, query.shape[2:4])
    weights = torch.cat([behind, own], -1).softmax(-1)
    seen = (weights[..., :prefix].flatten(2, 3) @ value_BHPd).unflatten(2, query.shape[2:4])
    return (seen + weights[..., prefix:] @ value_BHQTd).flatten(2, 3)
