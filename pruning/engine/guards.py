"""What pruning cannot do, refused with one clear error each."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import DynamicCache

from pruning.engine.state import Call


def refuse_second_method(model: nn.Module, engine_class: type) -> None:
    """Raise RuntimeError if a method is active on the model."""
    for hook in model._forward_pre_hooks.values():
        if isinstance(getattr(hook, "__self__", None), engine_class):
            raise RuntimeError("a pruning method is already active on this model: leave its context first")


def refuse_unprunable(call: Call) -> None:
    """Raise ValueError if tokens are about to be removed where that cannot work."""
    if call.labels:
        raise ValueError("labels cannot be used while visual tokens are pruned: the logits no longer line up with them")
    if call.cache is not None and (not isinstance(call.cache, DynamicCache) or call.cache.offloading):
        raise ValueError(
            f"pruning needs the default dynamic KV cache, not {type(call.cache).__name__}: leave cache_implementation "
            "unset, or pass a DynamicCache without offloading"
        )
    if call.odd_mask:
        raise ValueError("pruning needs a 2-D attention_mask [batch, tokens] or none")


def refuse_cache_in_repeat(mode: str, cache: Any) -> None:
    """Raise ValueError if `repeat` decoding is about to use a KV cache."""
    if mode == "repeat" and cache is not None:
        raise ValueError(
            "mode='repeat' runs and prunes the entire sequence anew at every step, without a KV cache: "
            "call generate(..., use_cache=False), or use mode='static'"
        )


def refuse_continuation(new_tokens: int) -> None:
    """Raise ValueError if several tokens are to be appended to a pruned cache at once."""
    if new_tokens > 1:
        raise ValueError(
            "a pruned KV cache can only be continued by one token at a time: pass the entire conversation without "
            "past_key_values, and use neither assisted decoding nor chunked prefill"
        )


def refuse_bad_stage(layer: int, num_layers: int, wanted: Sequence[int | None], current: Sequence[int | None]) -> None:
    """Raise ValueError if a method wants to prune at a layer that is not there, or to keep more than there are."""
    if not 0 <= layer < num_layers:
        raise ValueError(f"cannot prune in front of layer {layer}: the language model has layers 0..{num_layers - 1}")
    for want, now in zip(wanted, current, strict=True):
        if want is not None and now is not None and not 0 <= want <= now:
            raise ValueError(f"cannot keep {want} of {now} visual tokens in front of layer {layer}: keep fewer")
