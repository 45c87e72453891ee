"""VTW: from one layer on, no visual token is left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM
from pruning.engine.seen import ObservedLayer
from pruning.engine.tokens import Choice
from pruning.models.families import family_of
from pruning.models.sizes import Sizes


@dataclass
class VTW(InsideLLM):
    """Visual Tokens Withdrawal, Lin et al., arXiv 2405.05803, section 4.

    All visual tokens leave in front of layer k: by then the text has taken up what it needs. Original positions.

    Parameters:
        k: 0-based layer in front of which all visual tokens leave, at least 1. The authors take the first from 5 on
            whose output stays close enough to the full model's (`first_layer`); on LLaVA-1.5-7B that is 15.
    """

    name: ClassVar[str] = "vtw"
    label: ClassVar[str] = "VTW"
    budget_parameter: ClassVar[str | None] = "k"
    first: ClassVar[int] = 1

    k: int = 15

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole_number("k", self.k, minimum=self.first)

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        if self.k >= num_layers:
            raise ValueError(f"k={self.k} is not in front of any of the {num_layers} decoder layers: lower k")
        return {self.k: 0}

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        return Choice(~seen.visual_BS, [0] * len(counts))

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


@torch.no_grad()
def first_layer(model: PreTrainedModel, samples: Sequence[Mapping[str, Any]], most: float, *, start: int = 5) -> int:
    """The first k from `start` on for which dropping changes the output little, as the authors find theirs.

    Args:
        samples: inputs of the model, one or several prompts each.
        most: eta in the paper, the mean of KL(dropped || full) of the next token, in nats, that is still little.

    Raises:
        ValueError: no layer of the model comes that close.
    """
    full = [_next_token(model, sample) for sample in samples]
    layers = len(family_of(model).layers)
    for k in range(start, layers):
        with VTW(k=k)(model):
            dropped = [_next_token(model, sample) for sample in samples]
        pairs = zip(dropped, full, strict=True)
        divergence_B = torch.cat([(ours.exp() * (ours - theirs)).sum(dim=-1) for ours, theirs in pairs])
        if divergence_B.mean() <= most:
            return k
    raise ValueError(f"no layer from {start} to {layers - 1} comes within most={most}: raise most")


def _next_token(model: PreTrainedModel, sample: Mapping[str, Any]) -> Tensor:
    """Log-probabilities `[B, V]` after left-padded prompts, float32."""
    return model(**sample).logits[:, -1].float().log_softmax(dim=-1)
