"""A few attention rows of a layer, without its attention map.

A layer's query and key projections are caught while it computes them, so sdpa and flash attention stay on and nothing
is projected twice; only the asked rows are multiplied out: O(rows x tokens) time and memory.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from pruning.models.hooks import Hooks

QUERIES_AT_A_TIME = 256


def attention_rows(
    queries_BHRd: Tensor,
    keys_BGSd: Tensor,
    *,
    mask_BS: Tensor | None = None,
    rows_BR: Tensor | None = None,
    scaling: float | None = None,
) -> Tensor:
    """Softmax attention of R query rows over all S keys, in float32 (float64 for float64 input).

    Args:
        queries_BHRd: queries of H heads, rotary embedding applied where the layer applies one.
        keys_BGSd: keys of G heads; H is a multiple of G (grouped-query attention).
        mask_BS: bool, False for keys that are padding.
        rows_BR: int64 place of every query among the keys, for causal attention; None attends to all keys.
        scaling: factor on the products; None is 1/sqrt(d).

    Returns:
        `[B, H, R, S]`, every row sums to 1.
    """
    logits_BHRS = attention_logits(queries_BHRd, keys_BGSd, scaling=scaling)
    visible = None if mask_BS is None else mask_BS[:, None, None, :]
    if rows_BR is not None:
        places_S = torch.arange(keys_BGSd.shape[2], device=keys_BGSd.device)
        causal = places_S <= rows_BR[:, None, :, None]
        visible = causal if visible is None else visible & causal
    if visible is not None:
        logits_BHRS = logits_BHRS.masked_fill(~visible, float("-inf"))
    return logits_BHRS.softmax(dim=-1)


def attention_logits(queries_BHRd: Tensor, keys_BGSd: Tensor, *, scaling: float | None = None) -> Tensor:
    """Scaled products of R query rows with all S keys before the softmax, `[B, H, R, S]`, at least float32."""
    groups = keys_BGSd.shape[1]
    grouped = queries_BHRd.unflatten(1, (groups, -1))
    scaling = queries_BHRd.shape[-1] ** -0.5 if scaling is None else scaling
    logits = torch.einsum("bghrd,bgsd->bghrs", grouped, keys_BGSd) * scaling
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return logits.flatten(1, 2)


def received_attention(queries_BHSd: Tensor, keys_BHSd: Tensor) -> Tensor:
    """Mean attention every key receives over all queries, `[B, H, S]`: the stand-in for [CLS] where there is none.

    All queries are needed, so the time is O(S^2); the memory is O(QUERIES_AT_A_TIME x S), as no map is ever whole.
    """
    total_BHS: Tensor | float = 0.0
    for queries in queries_BHSd.split(QUERIES_AT_A_TIME, dim=2):
        total_BHS = total_BHS + attention_rows(queries, keys_BHSd).sum(dim=2)
    return torch.as_tensor(total_BHS) / queries_BHSd.shape[2]


@dataclass(frozen=True)
class Projections:
    """Queries and keys of one attention layer over S tokens, before the split into heads.

    Attributes:
        queries_BSC, keys_BSC: outputs of `q_proj` and `k_proj`.
        rotary: the cos and sin `[B or 1, S, d]` the layer applies to both, or None.
        head_dim: d.
    """

    queries_BSC: Tensor
    keys_BSC: Tensor
    rotary: tuple[Tensor, Tensor] | None
    head_dim: int

    def queries(self, rows_BR: Tensor | None = None, *, rope: bool = True) -> Tensor:
        """Queries `[B, H, R, d]` at the rows (None: all), with the rotary embedding of the layer."""
        if rows_BR is None:
            return _heads(self.queries_BSC, self.rotary if rope else None, self.head_dim)
        rotary = None if self.rotary is None or not rope else _rotary_at(self.rotary, rows_BR)
        return _heads(_at(self.queries_BSC, rows_BR), rotary, self.head_dim)

    def keys(self, *, rope: bool = True) -> Tensor:
        """Keys `[B, G, S, d]`, with the rotary embedding of the layer."""
        return _heads(self.keys_BSC, self.rotary if rope else None, self.head_dim)

    def rows(self, rows_BR: Tensor, mask_BS: Tensor | None = None, *, causal: bool = True, rope: bool = True) -> Tensor:
        """Attention of the query rows over all keys, `[B, H, R, S]`, softmax in float32."""
        places_BR = rows_BR if causal else None
        return attention_rows(
            self.queries(rows_BR, rope=rope), self.keys(rope=rope), mask_BS=mask_BS, rows_BR=places_BR
        )

    def cls_row(self) -> Tensor:
        """Attention of the first token ([CLS]) over the others, `[B, H, N]`; the column of [CLS] itself is left out."""
        first_B1 = torch.zeros(len(self.keys_BSC), 1, dtype=torch.long, device=self.keys_BSC.device)
        return self.rows(first_B1, causal=False)[:, :, 0, 1:]


class Watch(Hooks):
    """Catches the projections of one attention layer whenever it runs.

    Works on layers that have `q_proj` and `k_proj`: Llama-like decoders and CLIP-like vision towers.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self._head_dim: int = attention.head_dim
        self._rotary: tuple[Tensor, Tensor] | None = None
        self._caught: dict[str, Tensor] = {}
        self._handles += [
            attention.register_forward_pre_hook(self._catch_rotary, with_kwargs=True),
            attention.q_proj.register_forward_hook(partial(self._catch, "queries")),
            attention.k_proj.register_forward_hook(partial(self._catch, "keys")),
        ]

    def _catch_rotary(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._rotary = kwargs.get("position_embeddings")

    def _catch(self, what: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._caught[what] = output

    @property
    def projections(self) -> Projections:
        """Those of the latest run."""
        if len(self._caught) < 2:
            raise RuntimeError("the watched layer has not run yet: run the model inside the context first")
        return Projections(self._caught["queries"], self._caught["keys"], self._rotary, self._head_dim)

    def forget(self) -> None:
        """Let go of the tensors."""
        self._caught.clear()
        self._rotary = None


def rows_ahead(
    layer: Any, hidden_BSD: Tensor, rotary: tuple[Tensor, Tensor] | None, rows_BR: Tensor, mask_BS: Tensor | None = None
) -> Tensor:
    """Attention rows `[B, H, R, S]` that a Llama-like decoder layer is about to compute, from its input.

    Without `rotary` they are those of queries and keys as they are projected.
    """
    attention = layer.self_attn
    normed_BSD = layer.input_layernorm(hidden_BSD)
    at_rows = None if rotary is None else _rotary_at(rotary, rows_BR)
    queries = _heads(attention.q_proj(_at(normed_BSD, rows_BR)), at_rows, attention.head_dim)
    keys = _heads(attention.k_proj(normed_BSD), rotary, attention.head_dim)
    return attention_rows(queries, keys, mask_BS=mask_BS, rows_BR=rows_BR)


@contextmanager
def watch(layers: Iterable[Any]) -> Iterator[list[Watch]]:
    """Catch the projections of the given layers (each with `.self_attn`) while the context is open.

    Example:
        with observe.watch(family.layers) as watched, torch.no_grad():
            model(**inputs)
            last_row = watched[3].projections.rows(torch.full((1, 1), length - 1))
    """
    watched: list[Watch] = []
    try:
        for layer in layers:
            watched.append(Watch(layer.self_attn))
        yield watched
    finally:
        for one in watched:
            one.remove()


def _heads(projected_BSC: Tensor, rotary: tuple[Tensor, Tensor] | None, head_dim: int) -> Tensor:
    heads_BHSd = projected_BSC.unflatten(-1, (-1, head_dim)).transpose(1, 2)
    return heads_BHSd if rotary is None else apply_rotary_pos_emb(heads_BHSd, heads_BHSd, *rotary)[0]


def _rotary_at(rotary: tuple[Tensor, Tensor], rows_BR: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = rotary
    return _at(cos, rows_BR), _at(sin, rows_BR)


def _at(values_BSC: Tensor, rows_BR: Tensor) -> Tensor:
    # cos and sin come with one row for the batch when all rows have the same positions.
    values_BSC = values_BSC.expand(rows_BR.shape[0], -1, -1)
    return values_BSC.gather(1, rows_BR[..., None].expand(-1, -1, values_BSC.shape[-1]))
