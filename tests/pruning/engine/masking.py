"""The unpruned model in which tokens are hidden from some layer on: what pruning must be equal to."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning.engine.record import Record
from tests.tiny_models import IMAGE, VIDEO


@contextmanager
def hidden(
    model: PreTrainedModel,
    inputs: dict[str, Tensor],
    record: Record,
    beams: int = 1,
    decode_from: int | None = None,
    repacked: bool = False,
) -> Iterator[None]:
    """Hide from every layer the visual tokens that the record says do not enter it.

    Nothing is removed: the model, in eager attention, sees the full prompt. With `decode_from`, decoding sees in every
    layer what enters that one. With `repacked`, every layer counts its positions over the tokens that it sees.
    """
    assert model.config.text_config._attn_implementation == "eager"
    layers = model.model.language_model.layers
    rotary = model.model.language_model.rotary_emb if repacked else None
    handles = []
    for index, layer in enumerate(layers):
        shown = [visible(inputs, record, index), visible(inputs, record, index if decode_from is None else decode_from)]
        hook = partial(_hide, index, rotary, *(visible_BL.repeat_interleave(beams, dim=0) for visible_BL in shown))
        handles.append(layer.register_forward_pre_hook(hook, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def visible(inputs: dict[str, Tensor], record: Record, layer: int) -> Tensor:
    """bool `[B, L]`, the tokens of the prompt that enter a layer."""
    ids_BL = inputs["input_ids"]
    visual_BL = (ids_BL == IMAGE) | (ids_BL == VIDEO)
    visible_BL = inputs["attention_mask"].bool() & ~visual_BL
    for row, kept in enumerate(record.kept):
        visual = visual_BL[row].nonzero()[:, 0]
        visible_BL[row, visual[kept[layer]]] = True
    return visible_BL


def _hide(index: int, rotary, prefill_BL: Tensor, decode_BL: Tensor, module, args, kwargs):
    batch, length = args[0].shape[:2]
    cache = kwargs.get("past_key_values")
    past = 0 if cache is None else cache.get_seq_length(index)
    visible_BL = decode_BL if past else prefill_BL
    visible_BK = torch.nn.functional.pad(visible_BL, (0, past + length - visible_BL.shape[1]), value=True)
    places = torch.arange(past + length)
    query = places[past:, None]
    # A hidden token sees itself, or its softmax would be over nothing.
    seen = (visible_BK[:, None, None, :] & (places <= query)) | (places == query)
    mask = torch.zeros(batch, 1, length, past + length).masked_fill(~seen, torch.finfo(torch.float32).min)
    changed = {**kwargs, "attention_mask": mask}
    if rotary is not None:
        positions = (visible_BK.cumsum(dim=1) - 1).clamp(min=0)[:, past:]
        changed["position_embeddings"] = rotary(args[0], positions)
    return args, changed
