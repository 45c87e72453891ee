"""How many of the most important visual tokens stay: GlimpsePrune's rules, for whatever rates the tokens."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pruning.choosing import checks
from pruning.choosing.base import InsideLLM
from pruning.choosing.selection import rank
from pruning.engine.seen import ObservedLayer
from pruning.engine.tokens import Choice, upload
from pruning.glimpse.readout import Importance, visual_places


@dataclass
class KeepImportant(InsideLLM):
    """Tokens leave behind one decoder layer, and from the caches of the layers up to it, by a logit of importance.

    A token stays if its probability is above the threshold. If more than `max_remain_ratio` would stay, only the
    int(ratio x N) most important ones do; if fewer than `min_remain_num`, so many. Ranking is by the logit, equal ones
    by lower index: probabilities all become 1 above logits of about 17.

    Parameters:
        threshold: on the probability.
        max_remain_ratio: the largest share that stays; None: no limit.
        fixed_remain_ratio: instead of all these rules exactly max(1, int(ratio x N)) stay. It is what budgets turn.
        min_remain_num: the fewest that stay.
        per_image: apply the rules to every image (or video) on its own instead of to all visual tokens of a sample.
    """

    budget_parameter: ClassVar[str | None] = "fixed_remain_ratio"
    prune_earlier_caches: ClassVar[bool] = True

    threshold: float = 0.5
    max_remain_ratio: float | None = None
    fixed_remain_ratio: float | None = None
    min_remain_num: int = 1
    per_image: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.fraction("threshold", self.threshold)
        checks.whole_number("min_remain_num", self.min_remain_num)
        for name in ("max_remain_ratio", "fixed_remain_ratio"):
            if getattr(self, name) is not None:
                checks.fraction(name, getattr(self, name))
        if self.max_remain_ratio is not None and self.fixed_remain_ratio is not None:
            raise ValueError("give either max_remain_ratio or fixed_remain_ratio, not both")

    @property
    @abstractmethod
    def first_pruned_layer(self) -> int:
        """0-based decoder layer in front of which tokens leave."""

    @abstractmethod
    def importance(self, seen: ObservedLayer) -> Importance:
        """Logits of the visual tokens of the samples (the first of every `seen.copies` rows)."""

    def fixed_count(self, num_visual: int) -> int | None:
        """Tokens that stay of so many, None where the rules decide by their logits."""
        if self.fixed_remain_ratio is None:
            return None
        return max(1, min(num_visual, int(self.fixed_remain_ratio * num_visual)))

    def stages(self, num_visual: int, num_layers: int) -> dict[int, int | None]:
        layer = self.first_pruned_layer
        if layer >= num_layers:
            raise ValueError(f"layer {layer} would be the first on fewer tokens, but there are only {num_layers}")
        return {layer: None if self.per_image else self.fixed_count(num_visual)}

    def choose(self, seen: ObservedLayer, counts: Sequence[int | None]) -> Choice:
        samples = seen.tokens.visual[:: seen.copies]
        found = self.importance(seen)
        groups = [count for images in found.image_tokens for count in images] if self.per_image else list(samples)
        keep_N = self.keep(found.logits_N, [count for count in groups if count > 0])
        visual_BS = seen.visual_BS[:: seen.copies]
        keep_BS = (~visual_BS).index_put(visual_places(visual_BS, samples), keep_N)
        known = [count for count in counts if count is not None]
        return Choice(keep_BS.repeat_interleave(seen.copies, dim=0), known if len(known) == len(counts) else None)

    def keep(self, logits_N: Tensor, groups: Sequence[int]) -> Tensor:
        """bool `[N]`, what stays by these rules.

        Args:
            logits_N: groups one after the other.
            groups: tokens of each, at least one.
        """
        logits_GM = pad_sequence(logits_N.split(list(groups)), batch_first=True, padding_value=float("-inf"))
        if self.fixed_remain_ratio is not None:
            counts_G = upload([self.fixed_count(size) or 0 for size in groups], logits_N.device)
        else:
            counts_G = (logits_GM.sigmoid() > self.threshold).sum(dim=1)
            if self.max_remain_ratio is not None:
                # In double precision, as shares are compared in Python.
                share_G = counts_G.double() / upload(list(groups), logits_N.device)
                most_G = upload([int(self.max_remain_ratio * size) for size in groups], logits_N.device)
                counts_G = torch.where(share_G > self.max_remain_ratio, most_G, counts_G)
            least_G = upload([min(self.min_remain_num, size) for size in groups], logits_N.device)
            counts_G = torch.maximum(counts_G, least_G)
        first_GM = torch.arange(logits_GM.shape[1], device=logits_N.device) < counts_G[:, None]
        keep_GM = torch.zeros_like(first_GM).scatter(1, rank(logits_GM), first_GM)
        return torch.cat([keep_M[:size] for keep_M, size in zip(keep_GM, groups, strict=True)])
