"""An attention that handles masks as flash attention does, so that its pitfalls are tested without a GPU.

It takes a 2-D mask or none, aligned with the keys; without a mask, positions with gaps mean packed sequences to it.
"""

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask
from transformers.modeling_flash_attention_utils import _is_packed_sequence

# transformers takes every name with "flash" in it for a kernel to load.
NAME = "varlen"


def flash_like(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_ids: Tensor | None = None,
    **unused,
) -> tuple[Tensor, None]:
    batch, heads, queries, width = query.shape
    keys = key.shape[2]
    if attention_mask is None:
        assert not _is_packed_sequence(position_ids, batch), "flash attention would split this into packed sequences"
        attention_mask = torch.ones(batch, keys, dtype=torch.bool)
    assert attention_mask.shape == (batch, keys), "flash attention would read this mask out of step with the keys"
    visible = attention_mask.bool()[:, None, None, :]
    if module.is_causal if is_causal is None else is_causal:
        places = torch.arange(keys)
        visible = visible & (places <= places[keys - queries :, None])
    key, value = (tensor.repeat_interleave(heads // tensor.shape[1], dim=1) for tensor in (key, value))
    logits = query @ key.mT * (width**-0.5 if scaling is None else scaling)
    weights = logits.masked_fill(~visible, float("-inf")).softmax(dim=-1).nan_to_num()
    return (weights @ value).transpose(1, 2), None


def register() -> str:
    """Make it known to transformers; the name to ask for."""
    AttentionInterface.register(NAME, flash_like)
    AttentionMaskInterface.register(NAME, flash_attention_mask)
    return NAME
