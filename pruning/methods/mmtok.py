"""MMTok: tokens that together cover the words of the question and the image itself."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pruning.choosing import checks
from pruning.choosing.base import KeepPerImage
from pruning.choosing.coverage import greedy_coverage
from pruning.choosing.merging import pick_rows, wide
from pruning.engine.seen import Observed
from pruning.engine.tokens import upload
from pruning.models.family import Family
from pruning.models.sizes import Sizes

SMALLEST_NORM = 1e-8
# By mRoPE or not: the authors' temperatures for Qwen2.5-VL and for LLaVA.
TEXT_TEMPERATURE = {True: 0.01, False: 0.02}
INSTRUCTIONS = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
)
# Words that say nothing about a picture, the authors' list.
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the is are was were be been being have has had do does did it they he she we you i what where when why "
        "how who which and or but so if then question answer to for with by from at into onto upon",
    )
)


@dataclass
class MMTok(KeepPerImage):
    """Dong et al., arXiv 2508.18264: maximum coverage of two modalities.

    How far a visual token covers a word is the softmax over the tokens of their cosine over a temperature (word: input
    embedding of the language model; token: projected), divided by the number of words; how far it covers a patch the
    same with the features of both before the projector, divided by the number of patches and times `alpha`. A greedy
    search picks the tokens that cover most. Positions are re-packed.

    Words are those of the question as the authors take them. LLaVA: without the usual instruction and without stop
    words (with them if none is left); Qwen: all words behind "Question:". They are tokenised by the model's tokenizer.
    Without `questions`, or where the model was loaded from no folder, all text of the prompt behind the image counts as
    words instead: that fallback is ours, not the authors'.

    Unlike the authors' code it takes batches and several images. In LLaVA-NeXT all crops share `keep`, and newlines
    compare by the patch to their left.

    Parameters:
        keep: tokens kept of every image.
        alpha: weight of covering the image.
        text_temperature: None: the authors', .02, and .01 with mRoPE (Qwen2.5-VL).
        vision_temperature: that of patches with patches.
        questions: for every sample of the batch its question.
        padding: for every image of the batch, in the order of the prompts, the visual tokens that lie entirely in a
            border that fills the image up to a square: they are never picked. The authors leave them out on LLaVA-1.5.
    """

    name: ClassVar[str] = "mmtok"
    label: ClassVar[str] = "MMTok"
    told: ClassVar[tuple[str, ...]] = ("questions",)

    alpha: float = 0.5
    text_temperature: float | None = None
    vision_temperature: float = 0.2
    questions: Sequence[str] = field(default=(), repr=False)
    padding: Sequence[Sequence[int]] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative("alpha", self.alpha)
        if self.text_temperature is not None:
            checks.above_zero("text_temperature", self.text_temperature)
        checks.above_zero("vision_temperature", self.vision_temperature)

    def for_questions(self, questions: Sequence[Mapping[str, Any]]) -> Self:
        return replace(self, questions=[question["question"] for question in questions])

    def select(self, seen: Observed) -> Tensor:
        temperature = self.text_temperature
        if temperature is None:
            temperature = TEXT_TEMPERATURE[seen.family.mrope]
        barred_BN = self._barred(seen)
        reach_BRN = both_reaches(
            *self._words(seen), seen.projected_BND, seen.features_BNC, temperature, self.vision_temperature, self.alpha
        )
        return greedy_coverage(reach_BRN, self.keep, barred_BN=barred_BN).sort(dim=1).values

    def _barred(self, seen: Observed) -> Tensor | None:
        """bool `[B, N]`, the tokens of padded borders."""
        if not self.padding:
            return None
        if len(self.padding) <= max(seen.images):
            raise ValueError(f"padding has {len(self.padding)} images but the batch more: give a list for every image")
        barred_BN = torch.zeros(seen.num_images, seen.num_visual, dtype=torch.bool, device=seen.device)
        for place, image in enumerate(seen.images):
            left = seen.num_visual - len(set(self.padding[image]))
            if self.keep > left:
                raise ValueError(f"keep={self.keep} is above the {left} visual tokens outside the padding: lower keep")
            barred_BN[place].index_fill_(0, upload(list(self.padding[image]), seen.device), True)
        return barred_BN

    def _words(self, seen: Observed) -> tuple[Tensor, Tensor]:
        """Embeddings `[B, M, D]` of every image's words, and which of them there are, bool `[B, M]`."""
        name = seen.family.model.config.name_or_path
        if not self.questions or not name:
            return _behind(seen)
        if len(self.questions) <= max(seen.samples):
            raise ValueError("questions has fewer samples than the batch: give the question of every sample")
        ids = [word_ids(_tokenizer(name), self.questions[sample], seen.family) for sample in seen.samples]
        length = max(map(len, ids))
        padded = [number for one in ids for number in [*one, *[0] * (length - len(one))]]
        ids_BM = upload(padded, seen.device).view(-1, length)
        there_BM = torch.arange(length, device=seen.device) < upload([len(one) for one in ids], seen.device)[:, None]
        return seen.family.model.get_input_embeddings()(ids_BM), there_BM

    def choosing_flops(self, sizes: Sizes) -> int:
        among = 2 * sizes.visual_tokens**2 * sizes.vision_width
        return among + 2 * sizes.text_tokens * sizes.visual_tokens * sizes.hidden


def both_reaches(
    words_BMD: Tensor,
    there_BM: Tensor,
    projected_BND: Tensor,
    features_BNC: Tensor,
    text_temperature: float,
    vision_temperature: float,
    alpha: float,
) -> Tensor:
    """How far each visual token covers every word and every patch, `[B, M + N, N]`; words that are not there by 0."""
    tokens_BND, patches_BNC = _unit(projected_BND), _unit(features_BNC)
    words_BMN = ((_unit(words_BMD) @ tokens_BND.mT) * (1 / text_temperature)).softmax(dim=2)
    words_BMN = words_BMN / there_BM.sum(dim=1)[:, None, None].clamp(min=1) * there_BM[..., None]
    patches_BNN = ((patches_BNC @ patches_BNC.mT) * (1 / vision_temperature)).softmax(dim=2) / patches_BNC.shape[1]
    return torch.cat([words_BMN, alpha * patches_BNN], dim=1)


def _unit(values: Tensor) -> Tensor:
    values = wide(values)
    return values / values.norm(dim=-1, keepdim=True).clamp(min=SMALLEST_NORM)


def _behind(seen: Observed) -> tuple[Tensor, Tensor]:
    """The text of every prompt behind the image, all of the prompt's where nothing follows."""
    places_L = torch.arange(seen.text_BL.shape[1], device=seen.device)
    behind_BL = seen.text_BL & (places_L > seen.slots_BN[:, -1:])
    words_BL = torch.where(behind_BL.any(dim=1, keepdim=True), behind_BL, seen.text_BL)
    most = max(seen.prompt.tokens.text[sample] for sample in seen.samples)
    first_BM = (~words_BL).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return pick_rows(seen.text_embeddings_BLD, first_BM), words_BL.gather(1, first_BM)


def keywords(question: str) -> str:
    """What is left of a question without the usual instructions and without stop words; all of it if nothing is."""
    for instruction in INSTRUCTIONS:
        question = question.replace(instruction, "")
    left = [word for word in re.findall(r"\b\w+\b", question) if word.lower() not in STOP_WORDS]
    return " ".join(left) if left else question


def word_ids(tokenizer: PreTrainedTokenizerBase, question: str, family: Family) -> list[int]:
    """Ids of a question's words as the authors take them for a family of models, without a start token."""
    text = f"Question: {question}" if family.mrope else keywords(question)
    ids: list[int] = tokenizer(text.split(), is_split_into_words=True)["input_ids"]
    return ids[1:] if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else ids


@lru_cache(maxsize=1)
def _tokenizer(name: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(name)
