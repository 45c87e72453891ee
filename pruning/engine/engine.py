"""Makes an unmodified model obey a method, through hooks on its instances that are gone when the context ends.

At the prefill, visual tokens leave before the language model (one hook on it) or in front of decoder layers (one hook
on each, see `stages`). From there on every layer gets the rotary embedding and the mask of the tokens that are still
present, in the prefill and in every decoding step, since the model goes on passing those of the full prompt.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_causal_mask

from pruning.engine import guards
from pruning.engine.before import arrange_images, choose_by_image, prompt_tokens
from pruning.engine.contract import Before, Inside
from pruning.engine.encoded import EncodedImages
from pruning.engine.inside import Stages
from pruning.engine.record import Record
from pruning.engine.seen import Prompt
from pruning.engine.state import BEFORE, Call, Pass
from pruning.engine.tokens import Choice, Tokens, take_tokens
from pruning.models.families import family_of
from pruning.models.vision import Vision

Rotary = tuple[Tensor, Tensor]
PIXELS = {"image": "pixel_values", "video": "pixel_values_videos"}


class Engine:
    """Hooks of one method on one model.

    Args:
        model: an unmodified model of a supported family.
        before: chooses before the language model, or None.
        inside: chooses between decoder layers, or None.
        images: the images of every prompt, encoded beforehand; None where the model encodes them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        before: Before | None,
        inside: Inside | None,
        images: EncodedImages | None = None,
    ) -> None:
        self.family = family_of(model)
        self.model = model
        self.before = before
        self.inside = inside
        self.images = images
        self.record = Record()
        self.vision: Vision
        self._stages: Stages | None = None
        self._handles: list[Any] = []
        self._pass: Pass | None = None
        self._labels = False
        self._call: Call | None = None
        # Of the running forward: tokens entering layer 0, decoding steps so far (None: prefill), and what the latest
        # set of tokens needs in a layer.
        self._entering: Tokens | None = None
        self._decoded: int | None = None
        self._frame: tuple[Tokens, Rotary, Any] | None = None

    def install(self) -> None:
        """Register the hooks.

        Raises:
            ValueError: another model encoded the images.
            RuntimeError: another method is active on the model.
        """
        guards.refuse_second_method(self.model, type(self))
        family = self.family
        if self.images is None:
            self.vision = family.watch_vision()
            self._handles.append(self.vision)
            if self.before is not None:
                self.vision.watch_attention(self.before.attention_blocks(family))
        else:
            self.vision = self.images.for_model(self.model)
        if self.inside is not None:
            self.vision.watch_blocks(self.inside.vision_blocks(family))
            self._stages = Stages(self.inside, family, self.vision, self.record)
        self._handles += [
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
        self._pass = self._entering = self._frame = None

    def _on_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._labels = kwargs.get("labels") is not None

    def _on_core(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note where the placeholders are: the language model sees embeddings only."""
        family = self.family
        call = self._call = Call(labels=self._labels, cache=kwargs.get("past_key_values"))
        self._labels = False
        if call.decoding:
            return
        call.ids_BL = args[0] if args else kwargs.get("input_ids")
        embed = self.model.get_input_embeddings()
        encoded = kwargs.get("mm_encoder_outputs") or {}
        for kind, token_id in family.placeholder_ids.items():
            if call.ids_BL is not None:
                call.placeholders[kind] = call.ids_BL == token_id
            else:
                placeholder = torch.tensor(token_id, device=embed.weight.device)
                call.placeholders[kind] = (kwargs["inputs_embeds"] == embed(placeholder)).all(dim=-1)
            if kwargs.get(PIXELS[kind]) is not None or encoded.get(kind) is not None:
                call.given.append(kind)
        if self.images is not None:
            self.images.refuse_others(encoded.get("image"))
        elif not call.given:
            self.vision.forget()

    def _on_language_model(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        call, self._call, self._frame = self._call, None, None
        if call is None:  # not reached through the entire model: nothing is known about the prompt
            self._forget()
            return None
        changed = self._decode(call, kwargs) if call.decoding else self._prefill(call, kwargs)
        return None if changed is None else (args, changed)

    def _decode(self, call: Call, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Positions and mask of a decoding step, by the tokens entering layer 0."""
        if self._pass is None:
            return None
        guards.refuse_continuation(kwargs["inputs_embeds"].shape[1])
        tokens = self._pass.layers[0]
        self._entering, self._decoded = tokens, call.cached - tokens.length
        return {**kwargs, "position_ids": self._positions(tokens), "attention_mask": self._mask(tokens)}

    def _prefill(self, call: Call, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """Prune before the language model and plan what leaves inside it; the language model's new arguments."""
        tokens = prompt_tokens(call, self.family, kwargs["inputs_embeds"], kwargs)
        # Without a cache every step runs the prompt again; the choice made for it at first stays.
        earlier = self._pass
        asked_BL, chosen = call.ids_BL, {}
        if earlier is not None and call.continues(earlier.asked_BL, self.vision):
            asked_BL, chosen = earlier.asked_BL, earlier.chosen
        self._forget()
        self._decoded, self._entering, self.vision.fresh = None, tokens, False
        num_layers = len(self.family.layers)
        copies = arrange_images(call, self.vision, tokens)
        self.record.begin([tokens] * num_layers, copies)
        if not any(tokens.visual):
            return None
        prompt = Prompt(kwargs["inputs_embeds"], tokens, call.ids_BL)
        if self.before is not None:
            prompt = self._prune_before(self.before, call, prompt, copies, chosen)
        state = Pass(prompt, asked_BL, tokens, copies, [prompt.tokens] * num_layers, chosen=chosen)
        if self._stages is not None:
            self._stages.plan(call, state)
            prompt = self._stages.append(state)
        unchanged = prompt.tokens is tokens
        if state.counts or not unchanged:
            self._pass, self._entering = state, prompt.tokens
        if unchanged:
            return None
        changed = {
            "inputs_embeds": prompt.embeddings_BLD,
            "position_ids": self._positions(prompt.tokens),
            "attention_mask": self._mask(prompt.tokens),
        }
        if call.cache is None:  # with neither cache nor mask, gaps in the positions would mean packed sequences
            changed["attention_mask"] = prompt.tokens.mask_BS
        return kwargs | changed

    def _prune_before(
        self, before: Before, call: Call, prompt: Prompt, copies: int, chosen: dict[int, Choice]
    ) -> Prompt:
        """What is left of the prompt."""
        with self.record.choosing(prompt.embeddings_BLD.device), torch.no_grad():
            if BEFORE in chosen:
                choice = chosen[BEFORE].with_later(prompt.tokens.length - chosen[BEFORE].keep_BS.shape[1])
            else:
                choice = choose_by_image(before, self.family, self.vision, prompt, copies)
        if choice.hidden_BSD is None:  # merging methods make their tokens anew, from the same images
            chosen[BEFORE] = choice
        if choice.hidden_BSD is None and choice.visual == prompt.tokens.visual:
            return prompt
        guards.refuse_unprunable(call)
        tokens, order_BT = prompt.tokens.prune(choice, before.repacks(self.family))
        self.record.prune_from(0, tokens)
        self.record.note_members(choice.members)
        embeddings_BLD = prompt.embeddings_BLD if choice.hidden_BSD is None else choice.hidden_BSD
        return Prompt(take_tokens(embeddings_BLD, order_BT), tokens, prompt.ids_BL)

    def _on_layer(
        self, index: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        state = self._pass
        if state is None:
            return None
        hidden_BSD = args[0]
        if self._stages is not None and self._decoded is None:
            if index in state.counts:
                rotary, _ = self._rotary_and_mask(state.layers[index], index, hidden_BSD, kwargs)
                hidden_BSD = self._stages.prune(state, index, hidden_BSD, rotary, kwargs.get("past_key_values"))
            else:
                hidden_BSD = self._stages.prompt(state, index, hidden_BSD)
        tokens = state.layers[index]
        if tokens is state.full:
            return None
        rotary, mask = self._rotary_and_mask(tokens, index, hidden_BSD, kwargs)
        # Gaps in the positions look like packed sequences to flash attention: it gets none.
        changed = {"position_embeddings": rotary, "attention_mask": mask, "position_ids": None}
        return (hidden_BSD, *args[1:]), kwargs | changed

    def _positions(self, tokens: Tokens) -> Tensor:
        """Position ids of the running forward, in the shape the language model takes them."""
        positions_ABS = tokens.positions_ABS if self._decoded is None else tokens.next_AB1 + self._decoded
        return positions_ABS if self.family.mrope else positions_ABS[0]

    def _mask(self, tokens: Tokens) -> Tensor | None:
        """2-D mask of the running forward; None where no row has padding, which leaves the fast kernels on."""
        if not tokens.padded:
            return None
        return nn.functional.pad(tokens.mask_BS, (0, 0 if self._decoded is None else self._decoded + 1), value=True)

    def _rotary_and_mask(
        self, tokens: Tokens, index: int, hidden_BSD: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Rotary, Any]:
        """What these tokens need in a layer: made once per forward, or the language model's own where it made them."""
        if tokens is self._entering:
            return kwargs["position_embeddings"], kwargs["attention_mask"]
        if self._frame is None or self._frame[0] is not tokens:
            language_model = self.family.language_model
            rotary = language_model.rotary_emb(hidden_BSD, self._positions(tokens))
            mask = create_causal_mask(
                config=language_model.config,
                inputs_embeds=hidden_BSD,
                attention_mask=self._mask(tokens),
                past_key_values=kwargs.get("past_key_values"),
                layer_idx=index,
                # Known padding: no need to ask the device whether the mask could be skipped.
                allow_is_causal_skip=not tokens.padded,
            )
            self._frame = (tokens, rotary, mask)
        return self._frame[1:]
