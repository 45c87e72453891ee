"""Many questions about one image in one training sequence.

Each question is a block that sees the image and itself, at the positions it would have alone behind the image; so every
block trains exactly the single-question prompt, and the image is read once for all of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.testbed.questions import TYPES, Question, balanced, caption
from experiments.testbed.scenes import Scene
from experiments.testbed.vocabulary import WORD_ID

QUESTION_TOKENS = 14  # "is the red circle left or right of the blue square ?" ASSISTANT: answer
CAPTION_TOKENS = 52
IGNORED = -100
# Comparing and counting are learned last by far.
SHARES = {"existence": 0.08, "attribute": 0.1, "relation": 0.4, "counting": 0.28, "reading": 0.08, "small_object": 0.06}
PROMPT_HEAD = (WORD_ID["<s>"], WORD_ID["USER:"])


@dataclass(frozen=True)
class Packed:
    """`tokens`, `labels` int64 [B, T]: the blocks of each scene in turn; a label is the token that follows.

    `types` int64 [B, Q] says of which type each question is, as its index in `TYPES`.
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


def draw_questions(scene: Scene, count: int, rng: np.random.Generator) -> list[Question]:
    """`count` questions, types drawn by SHARES among those the scene can answer, answers balanced within a type."""
    askable = {name: found for name, ask in TYPES.items() if (found := ask(scene))}
    shares = np.array([SHARES[name] for name in askable])
    drawn = rng.choice(list(askable), size=count, p=shares / shares.sum())
    return [balanced(askable[name], rng) for name in drawn]


def pack(scenes: list[Scene], count: int, rng: np.random.Generator) -> Packed:
    """Blocks of `count` questions and one caption for each scene; all scenes get the same layout."""
    index = {name: i for i, name in enumerate(TYPES)}
    tokens, labels, types = [], [], []
    for scene in scenes:
        questions = draw_questions(scene, count, rng)
        types.append([index[question.type] for question in questions])
        blocks = [_block(question, QUESTION_TOKENS) for question in questions]
        blocks.append(_block(caption(scene), CAPTION_TOKENS))
        tokens.append([token for block in blocks for token in block[0]])
        labels.append([label for block in blocks for label in block[1]])
    return Packed(torch.tensor(tokens), torch.tensor(labels), torch.tensor(types))


def offsets(count: int) -> Tensor:
    """Position of each packed token within its own block, int64 [count * QUESTION_TOKENS + CAPTION_TOKENS]."""
    return torch.cat([torch.arange(QUESTION_TOKENS).repeat(count), torch.arange(CAPTION_TOKENS)])


def packed_attention(
    module: torch.nn.Module,
    query_BHSd: Tensor,
    key_BHSd: Tensor,
    value_BHSd: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    blocks: int = 0,
    **unused: object,
) -> tuple[Tensor, None]:
    """Attention in which each block sees the prefix and itself, causally: O(S x (prefix + block)) instead of O(S x S).

    An attention function for transformers' AttentionInterface. `blocks` questions and one caption end the sequence;
    with 0 blocks it is plain causal attention. Returns [B, S, H, d].
    """
    packed = blocks * QUESTION_TOKENS + CAPTION_TOKENS if blocks else 0
    prefix = query_BHSd.shape[2] - packed
    prefix_key, prefix_value = key_BHSd[:, :, :prefix], value_BHSd[:, :, :prefix]
    parts = [_causal(query_BHSd[:, :, :prefix], prefix_key, prefix_value, scaling)]
    start = prefix
    for number, length in ((blocks, QUESTION_TOKENS), (1, CAPTION_TOKENS)) if blocks else ():
        span = slice(start, start + number * length)
        inner = [x[:, :, span].unflatten(2, (number, length)) for x in (query_BHSd, key_BHSd, value_BHSd)]
        parts.append(_block_attention(*inner, prefix_key, prefix_value, scaling))
        start = span.stop
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
