"""Makes an unmodified model obey a method, through hooks on its instances that are gone when the context ends.

At the prefill, visual tokens leave before the language model (one hook on it) or in front of decoder layers (one hook
on each). From there on every layer gets the rotary embedding and the mask of the tokens that are still present, in the
prefill and in every decoding step, since the model goes on passing those of the full prompt.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_causal_mask

from pruning import guards
from pruning.families import family_of
from pruning.observe import Watch
from pruning.observed import ObservedLayer, Prompt
from pruning.placement import choose_by_image, expansion, prompt_tokens
from pruning.record import Record
from pruning.tokens import Choice, Tokens, take_tokens
from pruning.vision import Vision

if TYPE_CHECKING:
    from pruning.base import BeforeLLM, InsideLLM


@dataclass
class Pass:
    """What the engine remembers from a prefill until the next one.

    Attributes:
        prompt: the prompt as it entered the first decoder layer.
        full: the tokens of the full prompt; layers they enter are left alone.
        copies: rows (beams) that stand for one sample.
        layers: the tokens entering every decoder layer.
        counts: visual tokens to keep in every row, for every layer in front of which tokens leave.
        chosen: what stayed there, kept for decoding without a KV cache.
        watches: the layers whose attention a later choice needs.
    """

    prompt: Prompt
    full: Tokens
    copies: int
    layers: list[Tokens]
    counts: dict[int, list[int | None]] = field(default_factory=dict)
    chosen: dict[int, Tensor] = field(default_factory=dict)
    watches: dict[int, Watch] = field(default_factory=dict)

    def remove(self) -> None:
        for watch in self.watches.values():
            watch.remove()
        self.watches.clear()


class Engine:
    """Hooks of one method on one model.

    Args:
        model: an unmodified model of a supported family.
        before: chooses before the language model, or None.
        inside: chooses between decoder layers, or None.
    """

    def __init__(self, model: PreTrainedModel, before: "BeforeLLM | None", inside: "InsideLLM | None") -> None:
        self.family = family_of(model)
        self.model = model
        self.before = before
        self.inside = inside
        self.record = Record()
        self.vision: Vision
        self._handles: list[Any] = []
        self._pass: Pass | None = None
        self._call = guards.Call()
        # Of the running forward: tokens entering layer 0, decoding steps so far (None: prefill), and what each set of
        # tokens needs in a layer.
        self._entering: Tokens | None = None
        self._decoded: int | None = None
        self._frames: dict[int, tuple[tuple[Tensor, Tensor], Any]] = {}

    def install(self) -> None:
        """Register the hooks.

        Raises:
            RuntimeError: another method is active on the model.
        """
        guards.refuse_second_method(self.model, type(self))
        family = self.family
        self.vision = family.watch_vision()
        self._handles = [
            self.vision,
            self.model.register_forward_pre_hook(self._on_model, with_kwargs=True),
            family.core.register_forward_pre_hook(self._on_core, with_kwargs=True),
            family.language_model.register_forward_pre_hook(self._on_language_model, with_kwargs=True),
        ]
        for index, layer in enumerate(family.layers):
            self._handles.append(layer.register_forward_pre_hook(partial(self._on_layer, index), with_kwargs=True))

    def remove(self) -> None:
        """Take every hook off and forget everything."""
        for handle in self._handles:
            handle.remove()
        self._forget()

    def _forget(self) -> None:
        if self._pass is not None:
            self._pass.remove()
        self._pass = None

    def _on_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = guards.Call(labels=kwargs.get("labels") is not None)

    def _on_core(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note where the placeholders are: the language model sees embeddings only."""
        call, family = self._call, self.family
        call.cache = kwargs.get("past_key_values")
        if call.decoding:
            return
        call.ids_BL = args[0] if args else kwargs.get("input_ids")
        if call.ids_BL is not None:
            call.visual_BL = call.ids_BL == family.image_token_id
            if family.video_token_id is not None:
                call.video_BL = call.ids_BL == family.video_token_id
        else:
            embed = self.model.get_input_embeddings()
            placeholder = torch.tensor(family.image_token_id, device=embed.weight.device)
            call.visual_BL = (kwargs["inputs_embeds"] == embed(placeholder)).all(dim=-1)
        if kwargs.get("pixel_values") is None and not (kwargs.get("mm_encoder_outputs") or {}).get("image"):
            self.vision.forget()

    def _on_language_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        self._frames.clear()
        changed = self._decode(kwargs) if self._call.decoding else self._prefill(kwargs)
        return None if changed is None else (args, changed)

    def _decode(self, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Positions and mask of a decoding step, by the tokens entering layer 0."""
        if self._pass is None:
            return None
        tokens = self._pass.layers[0]
        self._entering, self._decoded = tokens, self._call.cached - tokens.length
        guards.refuse_continuation(kwargs["inputs_embeds"].shape[1])
        mask_BS = self._mask(tokens)
        return {**kwargs, "position_ids": self._positions(tokens), "attention_mask": mask_BS}

    def _prefill(self, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        previous, call = self._pass, self._call
        embeddings_BLD = kwargs["inputs_embeds"]
        tokens = prompt_tokens(call, self.family, embeddings_BLD, kwargs)
        # Without a cache every step runs the prompt again; the choice made for it at first stays.
        going_on = previous is not None and call.continues(previous.prompt, self.vision)
        chosen = previous.chosen if going_on and previous is not None else {}
        self._forget()
        self.vision.fresh = False
        full, self._entering, self._decoded = tokens, tokens, None
        copies = expansion(self.vision, tokens)
        self.record.begin([tokens] * len(self.family.layers), copies)
        if not any(tokens.visual):
            return None
        changed = None
        if self.before is not None:
            choice = self._choose_before(self.before, Prompt(embeddings_BLD, tokens, call.ids_BL), copies)
            if choice is not None:
                kept, order_BT = tokens.prune(choice, self._repacks(self.before.positions))
                embeddings_BLD = embeddings_BLD if choice.hidden_BSD is None else choice.hidden_BSD
                embeddings_BLD = take_tokens(embeddings_BLD, order_BT)
                self.record.prune_from(0, kept)
                tokens = self._entering = kept
                changed = {**kwargs, "inputs_embeds": embeddings_BLD, "position_ids": self._positions(tokens)}
                changed["attention_mask"] = self._mask(tokens)
                if kwargs.get("past_key_values") is None and changed["attention_mask"] is None:
                    # With neither cache nor mask, gaps in the positions would be taken for packed sequences.
                    changed["attention_mask"] = tokens.mask_BS
        prompt = Prompt(embeddings_BLD, tokens, call.ids_BL)
        self._pass = Pass(prompt, full, copies, [tokens] * len(self.family.layers), chosen=chosen)
        if self.inside is not None:
            self._plan_stages(self._pass, self.inside, tokens)
        if changed is None and not self._pass.counts:
            self._forget()
        return changed

    def _choose_before(self, before: "BeforeLLM", prompt: Prompt, copies: int) -> Choice | None:
        """The choice of the method before the language model; None where everything stays as it is."""
        with self.record.choosing(prompt.embeddings_BLD.device), torch.no_grad():
            choice = choose_by_image(before, self.family, self.vision, prompt, copies)
        if choice.hidden_BSD is None and choice.visual == prompt.tokens.visual:
            return None
        guards.refuse_unprunable(self._call)
        return choice

    def _plan_stages(self, state: Pass, inside: "InsideLLM", tokens: Tokens) -> None:
        """Work out how many tokens stay where, and watch the layers that a choice looks back to."""
        num_layers = len(state.layers)
        plans = [inside.stages(count, num_layers) if count else {} for count in tokens.visual]
        current: list[int | None] = list(tokens.visual)
        for layer in sorted({layer for plan in plans for layer in plan}):
            wanted = [plan.get(layer, now) for plan, now in zip(plans, current, strict=True)]
            guards.refuse_bad_stage(layer, num_layers, wanted, current)
            if wanted != current or None in wanted:
                state.counts[layer] = wanted
                if layer > 0:
                    state.watches[layer - 1] = Watch(self.family.layers[layer - 1].self_attn)
            current = wanted
        if state.counts:
            guards.refuse_unprunable(self._call)
            guards.refuse_cache_in_repeat(inside.mode, self._call.cache)

    def _on_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        state = self._pass
        if state is None:
            return None
        hidden_BSD, cache = args[0], kwargs.get("past_key_values")
        if self._decoded is None and index in state.counts:
            hidden_BSD = self._stage(state, index, hidden_BSD, cache)
        tokens = state.layers[index]
        if tokens is state.full:
            return None
        # Gaps in the positions look like packed sequences to flash attention: it gets none.
        kwargs = {**kwargs, "position_ids": None}
        if tokens is not self._entering:
            rotary, mask = self._frame(tokens, index, hidden_BSD, cache)
            kwargs |= {"position_embeddings": rotary, "attention_mask": mask}
        return (hidden_BSD, *args[1:]), kwargs

    def _stage(self, state: Pass, index: int, hidden_BSD: Tensor, cache: Any) -> Tensor:
        """Let the method choose in front of a layer; the hidden states of what stays."""
        inside, tokens = self.inside, state.layers[index]
        assert inside is not None
        choice = self._choose_inside(state, index, hidden_BSD, cache)
        kept, order_BT = tokens.prune(choice, self._repacks(inside.positions))
        first = index
        if inside.prune_earlier_caches:
            first = 0
            for layer in cache.layers[:index] if cache is not None else []:
                layer.keys = torch.take_along_dim(layer.keys, order_BT[:, None, :, None], dim=2)
                layer.values = torch.take_along_dim(layer.values, order_BT[:, None, :, None], dim=2)
        state.layers[first:] = [kept] * (len(state.layers) - first)
        self.record.prune_from(index, kept)
        return take_tokens(hidden_BSD if choice.hidden_BSD is None else choice.hidden_BSD, order_BT)

    def _choose_inside(self, state: Pass, index: int, hidden_BSD: Tensor, cache: Any) -> Choice:
        inside, tokens, counts = self.inside, state.layers[index], state.counts[index]
        assert inside is not None
        watch = state.watches.pop(index - 1, None)
        with self.record.choosing(hidden_BSD.device), torch.no_grad():
            if index in state.chosen and inside.mode == "static":
                earlier_BS = state.chosen[index]
                later = tokens.length - earlier_BS.shape[1]
                choice = Choice(nn.functional.pad(earlier_BS, (0, later), value=True))
            else:
                rotary, _ = self._frame(tokens, index, hidden_BSD, cache)
                previous = None if watch is None else watch.projections
                seen = ObservedLayer(self.family, index, hidden_BSD, tokens, state.prompt, previous, rotary)
                choice = inside.choose(seen, counts)
                if state.copies > 1:
                    keep_BS = choice.keep_BS[:: state.copies].repeat_interleave(state.copies, dim=0)
                    choice = Choice(keep_BS, choice.visual, choice.hidden_BSD, choice.order_BS, choice.numbers_BS)
        if watch is not None:
            watch.remove()
        if choice.hidden_BSD is None:
            state.chosen[index] = choice.keep_BS
        return choice

    def _repacks(self, positions: str) -> bool:
        return positions == "repacked" and not self.family.mrope

    def _positions(self, tokens: Tokens) -> Tensor:
        """Position ids of the running forward, in the shape the language model takes them."""
        positions_ABS = tokens.positions_ABS if self._decoded is None else tokens.next_AB1 + self._decoded
        return positions_ABS if self.family.mrope else positions_ABS[0]

    def _mask(self, tokens: Tokens) -> Tensor | None:
        """2-D mask of the running forward; None where no row has padding, which leaves the fast kernels on."""
        if not tokens.padded:
            return None
        return nn.functional.pad(tokens.mask_BS, (0, 0 if self._decoded is None else self._decoded + 1), value=True)

    def _frame(self, tokens: Tokens, index: int, hidden_BSD: Tensor, cache: Any) -> tuple[tuple[Tensor, Tensor], Any]:
        """Rotary embedding and attention mask of the tokens entering a layer, once per forward."""
        if id(tokens) not in self._frames:
            language_model = self.family.language_model
            rotary = language_model.rotary_emb(hidden_BSD, self._positions(tokens))
            mask = create_causal_mask(
                config=language_model.config,
                inputs_embeds=hidden_BSD,
                attention_mask=self._mask(tokens),
                past_key_values=cache,
                layer_idx=index,
            )
            self._frames[id(tokens)] = (rotary, mask)
        return self._frames[id(tokens)]
