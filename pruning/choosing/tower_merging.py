"""Merging patches inside the layers of an unmodified vision tower (ToMe), through hooks on its instances."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from pruning.choosing.merging import Clusters
from pruning.models.vision import NOT_RUN


class TowerMerging:
    """Merges patches in CLIP-like layers while the context is open, between attention and MLP, as ToMe does.

    A layer adds its MLP's output to what came in, whose length merging changes. So the MLP runs on the merged tokens,
    the layer is handed zeros to add, and its output is then replaced by the sum it should have made. The last of the
    layers writes every merged token to the places of all its patches: what follows sees as many as ever.

    Args:
        layers: the first layers of the tower, up to the one whose output the language model gets.
        keep: patches left behind the last of them.
        cls: whether token 0 is a [CLS], which stays unmerged.
    """

    def __init__(self, layers: Sequence[Any], keep: int, *, cls: bool) -> None:
        self._layers = layers
        self._keep = keep
        self._cls = cls
        self._handles: list[Any] = []
        self._clusters: Clusters | None = None
        self._merges: list[int] = []
        self._keys: Tensor | None = None
        self._merged: Tensor | None = None

    @property
    def owners_BN(self) -> Tensor:
        """int64 `[images, N]`, for every patch of the latest run the merged token it is in, from 0 to keep - 1."""
        if self._clusters is None:
            raise RuntimeError(NOT_RUN)
        # [CLS] is the first token and stays the first.
        return self._clusters.owners_BN[:, 1:] - 1 if self._cls else self._clusters.owners_BN

    def __enter__(self) -> Self:
        for index, layer in enumerate(self._layers):
            attention = layer.self_attn
            self._handles += [
                layer.register_forward_pre_hook(partial(self._on_layer, index)),
                attention.register_forward_pre_hook(self._weigh_by_size, with_kwargs=True),
                attention.k_proj.register_forward_hook(partial(self._catch_keys, attention.head_dim)),
                layer.layer_norm2.register_forward_pre_hook(partial(self._merge, index)),
                layer.mlp.register_forward_hook(self._hold_back),
                # Ahead of all hooks that catch the layer's output.
                layer.register_forward_hook(partial(self._replace, index), prepend=True),
            ]
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._clusters = self._keys = self._merged = None

    def _on_layer(self, index: int, module: nn.Module, args: tuple[Any, ...]) -> None:
        if index == 0:
            self._clusters = Clusters(args[0], cls=self._cls)
            surplus, layers = args[0].shape[1] - self._cls - self._keep, len(self._layers)
            self._merges = [(layer + 1) * surplus // layers - layer * surplus // layers for layer in range(layers)]

    def _weigh_by_size(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Proportional attention: a token that stands for s patches counts s times in the softmax."""
        assert self._clusters is not None
        if self._clusters.sizes_BS.shape == self._clusters.owners_BN.shape:  # nothing is merged yet
            return None
        hidden_BSC = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        bias_BS = self._clusters.sizes_BS.log().to(hidden_BSC.dtype)
        return args, {**kwargs, "attention_mask": bias_BS[:, None, None].expand(-1, -1, bias_BS.shape[1], -1)}

    def _catch_keys(self, head_dim: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._keys = output.unflatten(-1, (-1, head_dim)).mean(dim=2)

    def _merge(self, index: int, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
        assert self._clusters is not None and self._keys is not None
        self._merged, _ = self._clusters.merge(args[0], self._keys, self._merges[index])
        self._keys = None
        return (self._merged,)

    def _hold_back(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        assert self._merged is not None
        self._merged = self._merged + output
        return torch.zeros((), dtype=output.dtype, device=output.device)

    def _replace(self, index: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        assert self._clusters is not None and self._merged is not None
        merged, self._merged = self._merged, None
        if index < len(self._layers) - 1:
            return merged
        return torch.take_along_dim(merged, self._clusters.owners_BN[..., None], dim=1)
