"""The forward pass in which the glimpse token and the predictor are trained. Nothing is pruned in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from transformers import PreTrainedModel

from pruning.engine.tokens import take_tokens
from pruning.glimpse.modules import GlimpseModules
from pruning.glimpse.readout import Importance, glimpse_row, importance, vision_blocks
from pruning.models.families import family_of
from pruning.models.family import Family
from pruning.models.projections import Watch
from pruning.models.vision import Vision

IGNORED = -100


@dataclass(frozen=True)
class TrainingOutput:
    """What the losses are made of.

    Attributes:
        cross_entropy: 0-d, of the answer tokens, in the presence of the glimpse token.
        importance: the predictor's logits and the grids they lie on; `losses.box_mask` makes targets for them.
    """

    cross_entropy: Tensor
    importance: Importance


def training_forward(
    model: PreTrainedModel, modules: GlimpseModules, inputs: Mapping[str, Tensor], labels_BL: Tensor
) -> TrainingOutput:
    """One differentiable pass of an unmodified model with the glimpse token in front of every row's answer.

    The token sees the prompt and is seen by the answer, whose positions move on by one; it has no label of its own.
    Gradients reach `modules`; freeze the model's parameters beforehand. Nothing stays on the model, so with gradient
    checkpointing the backward pass would run without the token: leave it off.

    Args:
        model: a Qwen2.5-VL or LLaVA.
        modules: in training mode with dropout on the token, in evaluation mode without.
        inputs: what the model takes (`input_ids` with prompt and answer, `attention_mask`, `pixel_values` ...), without
            labels, padded on either side.
        labels_BL: int64, the answer's token ids, -100 everywhere else.

    Raises:
        ValueError: a row has no answer, or the labels are not as long as the prompt.
    """
    ids_BL = inputs["input_ids"]
    if labels_BL.shape != ids_BL.shape:
        raise ValueError(f"labels {tuple(labels_BL.shape)} and input_ids {tuple(ids_BL.shape)} differ in shape")
    answer_BL = labels_BL != IGNORED
    if not bool(answer_BL.any(dim=1).all()):
        raise ValueError("a row has no answer: every row needs labels that are not -100")
    glimpse = _Glimpse(family_of(model), modules, answer_BL.int().argmax(dim=1, keepdim=True))
    with glimpse.installed():
        logits_BLV = model(**inputs, use_cache=False).logits
        row_BHS = glimpse.row(modules.config.use_attention_logits)
        placeholders = {kind: ids_BL == token_id for kind, token_id in glimpse.family.placeholder_ids.items()}
        visual_BL = torch.stack([*placeholders.values()]).any(dim=0)
        if inputs.get("pixel_values") is not None and inputs.get("pixel_values_videos") is not None:
            glimpse.vision.interleave(placeholders["video"][visual_BL].tolist())
        visual_BS = glimpse.insert(visual_BL, False)
        found = importance(modules, glimpse.vision, row_BHS, visual_BS, visual_BS.sum(dim=1).tolist())
    labels_BS = glimpse.insert(labels_BL, IGNORED)
    vocabulary = model.config.get_text_config().vocab_size
    return TrainingOutput(model.loss_function(logits=logits_BLV, labels=labels_BS, vocab_size=vocabulary), found)


class _Glimpse:
    """Hooks that put the token in front of place `starts_B1` of every row; S = L + 1 afterwards."""

    def __init__(self, family: Family, modules: GlimpseModules, starts_B1: Tensor) -> None:
        self.family, self.starts_B1 = family, starts_B1
        self.config = modules.config
        table_LD = modules.token_table(family.language_model.config.rms_norm_eps)
        self.table_LD = dropout(table_LD, modules.config.le_dropout_prob, modules.training)
        self.vision: Vision
        self.watch: Watch
        self.mask_BS: Tensor | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        family, handles = self.family, list[Any]()
        try:
            self.vision = family.watch_vision()
            handles.append(self.vision)
            self.vision.watch_blocks(vision_blocks(family, self.config))
            self.watch = Watch(family.layers[self.config.reduce_layer].self_attn)
            handles.append(self.watch)
            handles.append(family.language_model.register_forward_pre_hook(self._enter, with_kwargs=True))
            for layer in range(1, self.config.glimpse_layers):
                handles.append(family.layers[layer].register_forward_pre_hook(partial(self._add, layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def insert(self, values_BL: Tensor, value: Any) -> Tensor:
        """`[B, S]` with the value at the token's place."""
        with_token = torch.cat([values_BL, torch.full_like(values_BL[:, :1], value)], dim=1)
        return with_token.gather(1, self._order_BS(values_BL.shape[1]))

    def row(self, before_softmax: bool) -> Tensor:
        """The token's attention row in layer K, `[B, H, S]`."""
        return glimpse_row(self.watch.projections, self.starts_B1, self.mask_BS, before_softmax=before_softmax)

    def _order_BS(self, length: int) -> Tensor:
        """For every place of the longer row the place it comes from; the token itself stands at `length`."""
        places_S = torch.arange(length + 1, device=self.starts_B1.device)
        moved_BS = places_S - (places_S > self.starts_B1).long()
        return moved_BS.masked_fill(places_S == self.starts_B1, length)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        embeddings_BLD = kwargs["inputs_embeds"]
        batch, length, _ = embeddings_BLD.shape
        token_B1D = self.table_LD[0].to(embeddings_BLD.dtype).expand(batch, 1, -1)
        order_BS = self._order_BS(length)
        changed = {"inputs_embeds": take_tokens(torch.cat([embeddings_BLD, token_B1D], dim=1), order_BS)}
        if (mask_BL := kwargs.get("attention_mask")) is not None:
            self.mask_BS = self.insert(mask_BL.bool(), True)
            changed["attention_mask"] = self.mask_BS
        if (positions_ABL := kwargs.get("position_ids")) is not None:
            # The token goes on from the prompt's last position, the answer from the token's.
            behind_BS = torch.arange(length + 1, device=order_BS.device) >= self.starts_B1
            source_BS = torch.arange(length + 1, device=order_BS.device) - behind_BS.long()
            changed["position_ids"] = torch.take_along_dim(_three_axes(positions_ABL), source_BS[None], 2) + behind_BS
            if positions_ABL.ndim == 2:
                changed["position_ids"] = changed["position_ids"][0]
        return args, kwargs | changed

    def _add(self, layer: int, module: nn.Module, args: tuple[Any, ...]) -> Any:
        hidden_BSD = args[0]
        here_BS1 = torch.arange(hidden_BSD.shape[1], device=hidden_BSD.device)[:, None] == self.starts_B1[:, None]
        return (hidden_BSD + here_BS1 * self.table_LD[layer].to(hidden_BSD.dtype), *args[1:])


def _three_axes(positions: Tensor) -> Tensor:
    """`[A, B, L]`; Qwen passes text positions in front of its three axes, which only serve packed sequences."""
    return positions[None] if positions.ndim == 2 else positions[-3:]
