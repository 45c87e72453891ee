"""The scores that methods rank visual tokens by, noted on the unpruned model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pruning.choosing.base import BeforeLLM, InsideLLM
from pruning.choosing.selection import greedy_dpp, max_min_diversity
from pruning.engine.seen import Observed, ObservedLayer
from pruning.engine.tokens import Choice
from pruning.methods.cdpruner import conditional_kernel, text_relevance
from pruning.methods.random import random_scores
from pruning.models.sizes import Sizes
from pruning.models.vision import touched


@dataclass
class BeforeScores(BeforeLLM):
    """Keeps every token and notes the scores of the methods before the language model, `[B, N]` each."""

    name: ClassVar[str] = "before_scores"
    positions = "original"

    boxes: Sequence[Sequence[Sequence[float]]] = ()
    found: dict[str, Tensor] = field(default_factory=dict)

    def count(self, num_visual: int) -> int:
        return num_visual

    def select(self, seen: Observed) -> Tensor:
        count = seen.num_visual
        relevance_BN = text_relevance(seen)
        kernel_BNN = conditional_kernel(seen.projected_BND, relevance_BN)
        evidence = [
            touched(cells_N4, torch.tensor(np.array([*self.boxes[sample]]), device=seen.device).view(-1, 4)).any(dim=0)
            for cells_N4, sample in zip(seen.cells_BN4, seen.samples, strict=True)
        ]
        self.found |= {
            "cls": seen.cls_attention_BHN.mean(dim=1),
            "cls_last_layer": seen.wide_attention_BN,
            "feature_norm": seen.features_BNC.norm(dim=-1),
            "relevance": relevance_BN,
            "dpp_order": earliness(greedy_dpp(kernel_BNN, count)),
            "diversity_order": earliness(max_min_diversity(seen.projected_BND, count)),
            "random": random_scores(seen, seed=0),
            "evidence": torch.stack(evidence),
        }
        return torch.arange(count, device=seen.device).expand(seen.num_images, -1)

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


@dataclass
class InsideScores(InsideLLM):
    """Keeps every token and notes the scores of methods inside the language model, each at its first layer."""

    name: ClassVar[str] = "inside_scores"

    methods: Mapping[str, InsideLLM] = field(default_factory=dict)
    found: dict[str, Tensor] = field(default_factory=dict)

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        return dict.fromkeys(sorted(self._by_layer(num_visual, num_layers)), None)

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        by_layer = self._by_layer(seen.prompt.tokens.visual[0], len(seen.family.layers))
        for name in by_layer[seen.layer]:
            scores_BS = self.methods[name].score(seen)
            self.found[name] = scores_BS[seen.visual_BS].unflatten(0, (len(scores_BS), -1))
        return Choice(torch.ones_like(seen.visual_BS), seen.tokens.visual)

    def _by_layer(self, num_visual: int, num_layers: int) -> dict[int, list[str]]:
        by_layer: dict[int, list[str]] = {}
        for name, method in self.methods.items():
            by_layer.setdefault(min(method.stages(num_visual, num_layers)), []).append(name)
        return by_layer

    def choosing_flops(self, sizes: Sizes) -> int:
        return 0


def earliness(picks_BN: Tensor) -> Tensor:
    """A score `[B, N]` that falls with the place of every token in an order of picks."""
    return -picks_BN.argsort(dim=1)
