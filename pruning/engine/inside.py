"""What leaves in front of decoder layers, at the prefill: planned before the first layer, chosen when its turn comes.

A method may put a token of its own behind the prompt, to look at it from there. Text and images never see it, and it is
gone before anything leaves.
"""

from typing import Any

import torch
from torch import Tensor

from pruning.engine import guards
from pruning.engine.contract import Inside
from pruning.engine.record import Record
from pruning.engine.seen import ObservedLayer, Prompt
from pruning.engine.state import Call, Pass
from pruning.engine.tokens import Choice, take_tokens
from pruning.models.family import Family
from pruning.models.projections import Watch
from pruning.models.vision import Vision


class Stages:
    """The stages of one method on one model.

    Args:
        inside: the method.
        family: the parts of the model.
        vision: the runs of its vision tower.
        record: learns what leaves.
    """

    def __init__(self, inside: Inside, family: Family, vision: Vision, record: Record) -> None:
        self.inside, self.family, self.vision, self.record = inside, family, vision, record
        with torch.no_grad():
            self.deep_prompt_LD = inside.deep_prompt(family)

    def plan(self, call: Call, state: Pass) -> None:
        """Work out how many tokens stay where, and watch the layers that a choice looks back to."""
        inside, num_layers = self.inside, len(state.layers)
        visual = state.prompt.tokens.visual
        plans = [inside.stages(count, num_layers) if count else {} for count in visual]
        current: list[int | None] = list(visual)
        for layer in sorted({layer for plan in plans for layer in plan}):
            wanted = [plan.get(layer, now) for plan, now in zip(plans, current, strict=True)]
            guards.refuse_bad_stage(layer, num_layers, wanted, current)
            if wanted != current or None in wanted:
                state.counts[layer] = wanted
            current = wanted
        if state.counts:
            guards.refuse_unprunable(call)
            guards.refuse_cache_in_repeat(inside.mode, call.cache)
        for layer in state.counts.keys() - {0}:
            state.watches[layer] = Watch(self.family.layers[layer - 1].self_attn)

    def append(self, state: Pass) -> Prompt:
        """The prompt as it is to enter the first layer: with the method's own token, if it is yet to choose by it."""
        prompt = state.prompt
        if self.deep_prompt_LD is None or not state.counts or self._chosen(state, min(state.counts)) is not None:
            return prompt
        tokens = prompt.tokens.with_one_more()
        state.layers[:] = [tokens] * len(state.layers)
        state.appended = True
        embeddings_BLD = prompt.embeddings_BLD
        token_B1D = self.deep_prompt_LD[0].to(embeddings_BLD.dtype).expand(len(embeddings_BLD), 1, -1)
        return Prompt(torch.cat([embeddings_BLD, token_B1D], dim=1), tokens, prompt.ids_BL)

    def prompt(self, state: Pass, index: int, hidden_BSD: Tensor) -> Tensor:
        """The hidden states in front of a layer, with what the method adds to its own token there."""
        if self.deep_prompt_LD is None or not state.appended or index == 0:
            return hidden_BSD
        last_B1D = hidden_BSD[:, -1:] + self.deep_prompt_LD[index].to(hidden_BSD.dtype)
        return torch.cat([hidden_BSD[:, :-1], last_B1D], dim=1)

    def prune(self, state: Pass, index: int, hidden_BSD: Tensor, rotary: tuple[Tensor, Tensor], cache: Any) -> Tensor:
        """Let the method choose in front of a layer; the hidden states of what stays."""
        inside = self.inside
        choice = self._choose(state, index, hidden_BSD, rotary)
        earlier = cache.layers[:index] if cache is not None else []
        if state.appended:
            state.appended = False
            hidden_BSD = hidden_BSD[:, :-1]
            state.layers[:] = [state.prompt.tokens] * len(state.layers)
            for layer in earlier:
                layer.keys, layer.values = layer.keys[:, :, :-1], layer.values[:, :, :-1]
        present = state.layers[index]
        tokens, order_BT = present.prune(choice, inside.repacks(self.family))
        first = index
        if inside.prune_earlier_caches:
            first = 0
            for layer in earlier:
                layer.keys = torch.take_along_dim(layer.keys, order_BT[:, None, :, None], dim=2)
                layer.values = torch.take_along_dim(layer.values, order_BT[:, None, :, None], dim=2)
        state.layers[first:] = [tokens] * (len(state.layers) - first)
        self.record.prune_from(index, tokens)
        if choice.hidden_BSD is not None:
            hidden_BSD = choice.hidden_BSD
        if choice.merge is not None:
            self.record.merge(present, choice)
            hidden_BSD = choice.merge.apply(hidden_BSD)
        return take_tokens(hidden_BSD, order_BT)

    def _choose(self, state: Pass, index: int, hidden_BSD: Tensor, rotary: tuple[Tensor, Tensor]) -> Choice:
        """What stays of the tokens in front of a layer, the method's own one aside."""
        tokens = state.layers[index]
        watch = state.watches.get(index)
        with self.record.choosing(hidden_BSD.device), torch.no_grad():
            choice = self._chosen(state, index)
            if choice is not None:
                choice = choice.with_later(tokens.length - choice.keep_BS.shape[1])
            else:
                previous = None if watch is None else watch.projections
                seen = ObservedLayer(
                    self.family,
                    self.vision,
                    index,
                    hidden_BSD,
                    tokens,
                    state.prompt,
                    state.full,
                    state.copies,
                    previous,
                    rotary,
                )
                choice = self.inside.choose(seen, state.counts[index])
                if state.appended:
                    choice = choice.without_last()
                if state.copies > 1:  # beams of a sample keep the same tokens, whatever the last bits of their scores
                    choice = choice.of_first_copies(state.copies)
        if watch is not None:
            state.watches.pop(index).remove()
        if choice.hidden_BSD is None:
            state.chosen[index] = choice
        return choice

    def _chosen(self, state: Pass, index: int) -> Choice | None:
        """What was chosen when the prompt ran for the first time, where decoding without a cache keeps to that."""
        return state.chosen.get(index) if self.inside.mode == "static" else None
