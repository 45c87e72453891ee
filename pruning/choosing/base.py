"""What a method is: a dataclass of the paper's parameters, and one small choice.

`with method(model) as record:` makes an unmodified model obey it until the context ends.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning.choosing import checks
from pruning.choosing.selection import rank
from pruning.engine.contract import MergedTokens, Selected
from pruning.engine.encoded import EncodedImages
from pruning.engine.engine import Engine
from pruning.engine.record import Record
from pruning.engine.seen import Observed, ObservedLayer
from pruning.engine.tokens import Choice, upload
from pruning.models.family import Family
from pruning.models.sizes import Sizes

Positions = Literal["original", "repacked"]
# Where a method prunes; or why it is no competitor: a reference looks at nothing, an oracle at the answer's evidence.
Role = Literal["reference", "before", "inside", "both", "oracle"]


@dataclass
class Method(ABC):
    """A way to prune visual tokens. Instances hold parameters only and can be used again and again.

    Class attributes:
        name: the name in the registry.
        label: what tables and figures for readers call it; its name where empty.
        role: see `Role`.
        budget_parameter: the parameter that `pruning.solve` turns; None where there is none.
        changes_tower: whether it works inside the vision tower, or sees more of it than images encoded beforehand keep,
            so that every run of it has to encode them.
        videos_only: whether it chooses among the frames of a video, and leaves images as they are.
        told: fields that are told about each question of a batch what `for_questions` finds under that name.
    """

    name: ClassVar[str]
    label: ClassVar[str] = ""
    role: ClassVar[Role]
    budget_parameter: ClassVar[str | None] = None
    changes_tower: ClassVar[bool] = False
    videos_only: ClassVar[bool] = False
    told: ClassVar[tuple[str, ...]] = ()

    @contextmanager
    def __call__(self, model: PreTrainedModel, images: EncodedImages | None = None) -> Iterator[Record]:
        """Prune in every prefill of `model` while the context is open.

        Args:
            model: an unmodified model of a supported family.
            images: the only images to prune in this context, encoded beforehand by this model, so that several methods
                can share that work; None where the model encodes those that it is called with.

        Raises:
            TypeError: the model is not supported.
            ValueError: another model encoded the images, or the method has to see them being encoded.
            RuntimeError: another method is active on the model.
        """
        if images is not None and self.changes_tower:
            raise ValueError(f"{self.name} has to see the vision tower run: pass pixel_values, not encoded images")
        before, inside = self.parts()
        engine = Engine(model, before, inside, images)
        try:
            engine.install()
            yield engine.record
        finally:
            engine.remove()

    @abstractmethod
    def parts(self) -> "tuple[PerImage | None, InsideLLM | None]":
        """What prunes before the language model and what prunes inside it."""

    @property
    def made_of(self) -> "Sequence[Method]":
        """The methods that this one puts together."""
        return ()

    @property
    def uses_cache(self) -> bool:
        """Whether decoding goes on from the KV cache of the pruned prompt."""
        return True

    def for_questions(self, questions: Sequence[Mapping[str, Any]]) -> Self:
        """The method for one batch, told what it has to know about each of its questions."""
        own: dict[str, Any] = {name: [question[name] for question in questions] for name in self.told}
        return replace(self, **own) if own else self

    def written(self) -> dict[str, Any]:
        """The parameters as params.yaml would have them, without what belongs to single questions."""
        parameters = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in self.told}
        if parameters.get("positions") is None:  # as the authors' code does it
            parameters.pop("positions", None)
        return parameters

    @abstractmethod
    def visual_tokens_per_layer(self, num_visual: int, num_layers: int) -> list[int]:
        """Visual tokens entering each decoder layer for one image of `num_visual` tokens, by formula.

        Raises:
            ValueError: the parameters do not fit so many visual tokens or layers.
        """

    @abstractmethod
    def choosing_flops(self, sizes: Sizes) -> int:
        """FLOPs (one multiply-add = 2) that choosing adds to a prefill; sorting and elementwise work do not count."""


@dataclass
class PerImage(Method):
    """A method that chooses before the language model runs, for every image on its own."""

    role: ClassVar[Role] = "before"

    def repacks(self, family: Family) -> bool:
        """Whether what stays is numbered anew: not with mRoPE, where positions are places in the image."""
        return not family.mrope

    def parts(self) -> "tuple[PerImage | None, InsideLLM | None]":
        return self, None

    def attention_blocks(self, family: Family) -> Sequence[int]:
        """0-based blocks of the vision tower, beside the observed one, whose attention the choice needs.

        `seen.watched_attention` and `seen.watched_received` then have it. Images encoded beforehand do not keep it:
        such a method sets `changes_tower`.
        """
        return ()

    @abstractmethod
    def count(self, num_visual: int) -> int | None:
        """Tokens kept of an image of `num_visual`; None where the image decides.

        Raises:
            ValueError: the parameters ask for more than there are.
        """

    @abstractmethod
    def select(self, seen: Observed) -> Tensor | MergedTokens | Selected:
        """The choice for B images of equal size: int64 `[B, count]` indices into the N visual tokens, ascending.

        `Selected` where their number differs from image to image, `MergedTokens` where tokens are made anew.
        """

    def visual_tokens_per_layer(self, num_visual: int, num_layers: int) -> list[int]:
        count = self.count(num_visual)
        if count is None:
            raise ValueError(f"{self.name} decides by the image how many tokens stay: there is no formula")
        return [count] * num_layers


@dataclass
class BeforeLLM(PerImage):
    """A method before the language model that drops or merges tokens.

    Parameters:
        positions: "original": what stays keeps its place in the unpruned prompt, and so does the text behind it.
            "repacked": numbered anew, as if the prompt had been that short. None: as all these methods' authors do it,
            repacked, except that models with mRoPE, whose positions are places in the image, keep them.
    """

    positions: Positions | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.positions is not None:
            checks.one_of("positions", self.positions, ("original", "repacked"))

    def repacks(self, family: Family) -> bool:
        """Whether what stays is numbered anew.

        Raises:
            ValueError: it is to be, but positions with mRoPE are places in the image.
        """
        if not family.mrope:
            return self.positions != "original"
        if self.positions == "repacked":
            raise ValueError("models with mRoPE keep the original positions: leave out positions='repacked'")
        return False


@dataclass
class KeepPerImage(BeforeLLM):
    """A method before the language model whose parameter is the number of tokens to keep of every image."""

    budget_parameter: ClassVar[str | None] = "keep"

    keep: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("keep", self.keep, minimum=1)

    def count(self, num_visual: int) -> int:
        checks.keep_of(self.keep, num_visual)
        return self.keep


@dataclass
class InsideLLM(Method):
    """A method that chooses between decoder layers, over all visual tokens of a sample.

    Class attributes:
        positions: whether surviving tokens keep their original positions or are numbered anew ("repacked"), as the
            authors' code does. Models with mRoPE always keep the original ones.

    Parameters:
        mode: "static" prunes at the prefill and decodes with the KV cache. "repeat" has no cache: every step runs the
            entire sequence and prunes it anew with the newest token as query; call `generate(use_cache=False)`.
    """

    role: ClassVar[Role] = "inside"
    positions: ClassVar[Positions] = "original"
    # The method also drops its choice from the caches of the layers that have already run.
    prune_earlier_caches: ClassVar[bool] = False

    mode: str = field(default="static", kw_only=True)

    def __post_init__(self) -> None:
        checks.one_of("mode", self.mode, ("static", "repeat"))

    def parts(self) -> "tuple[PerImage | None, InsideLLM | None]":
        return None, self

    @property
    def uses_cache(self) -> bool:
        return self.mode == "static"

    def repacks(self, family: Family) -> bool:
        """Whether what stays is numbered anew."""
        return self.positions == "repacked" and not family.mrope

    @abstractmethod
    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        """Visual tokens that enter each pruning layer on; None where the choice itself decides how many.

        Raises:
            ValueError: the parameters do not fit so many visual tokens or layers.
        """

    def vision_blocks(self, family: Family) -> Sequence[int]:
        """0-based blocks of the vision tower whose outputs the choice needs (`seen.vision.watched_blocks`)."""
        return ()

    def deep_prompt(self, family: Family) -> Tensor | None:
        """A token that the method puts behind the prompt until its first choice, as the last of every row.

        `[layers, D]`: row 0 is its embedding, row l is added to its hidden state in front of layer l, up to the layer
        before that choice. Its position is the one after the prompt's last; no other token sees it. Asked for once a
        context. None: no such token.
        """
        return None

    def score(self, seen: ObservedLayer) -> Tensor:
        """Scores `[B, S]` of the tokens in front of a layer; only those of visual tokens are read."""
        raise NotImplementedError

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        """What stays in front of a layer. Default: the highest scores, equal ones by lower index.

        Args:
            seen: the tokens in front of the layer.
            counts: visual tokens to keep in every row, as `stages` has it.
        """
        visual = [int(count) for count in counts if count is not None]
        scores_BS = self.score(seen).masked_fill(~seen.visual_BS, float("-inf"))
        order_BS = rank(scores_BS)
        places_BS = torch.empty_like(order_BS).scatter_(
            1, order_BS, torch.arange(order_BS.shape[1], device=order_BS.device).expand_as(order_BS)
        )
        few_BS = places_BS < upload(visual, order_BS.device)[:, None]
        return Choice(few_BS | ~seen.visual_BS, visual)

    def visual_tokens_per_layer(self, num_visual: int, num_layers: int) -> list[int]:
        stages = self.stages(num_visual, num_layers)
        per_layer, current = [], num_visual
        for layer in range(num_layers):
            count = stages.get(layer, current)
            if count is None:
                raise ValueError(f"{self.name} decides by the image how many tokens stay: there is no formula")
            current = count
            per_layer.append(current)
        return per_layer
