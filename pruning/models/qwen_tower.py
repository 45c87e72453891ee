"""The vision towers of the Qwen families, which run once on all images of a batch and once on all its videos."""

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from pruning.models.projections import attention_rows, received_attention
from pruning.models.vision import NOT_RUN, Image, Vision, pixel_keys, raster_cells


class TowerRun:
    """One run of the tower: images of any size one after the other, patches merged 2x2, windows undone.

    A video counts as one image of several temporal patches, whose queries see their own patch only.

    Attributes:
        pixel_values: `[patches, values]`; grid_thw: int64 `[images, 3]`, temporal patches, rows and columns of patches.
        call: arguments of the observed block; projected, output: what its projection and the block itself gave.
        further_calls, further_projected: the same of the blocks in `Vision.watch_attention`.
        watched: outputs of the blocks in `Vision.watch_blocks`.
    """

    def __init__(self, tower: Any, pixel_values: Tensor, grid_thw: Any) -> None:
        self.tower = tower
        self.merge = tower.spatial_merge_size**2
        self.pixel_values, self.grid_thw = pixel_values, grid_thw
        self.call: dict[str, Any] = {}
        self.projected: Tensor | None = None
        self.output: Tensor | None = None
        self.further_calls: dict[int, dict[str, Any]] = {}
        self.further_projected: dict[int, Tensor] = {}
        self.watched: dict[int, Tensor] = {}

    @cached_property
    def images(self) -> list[Image]:
        """What the tower was given, in its order; the indices count the vision tokens of this run."""
        images, start = [], 0
        side = self.tower.spatial_merge_size
        for frames, height, width in self.grid_thw.tolist():
            rows, columns = height // side, width // side
            count = frames * rows * columns
            index_N = torch.arange(start, start + count, device=self.grid_thw.device)
            cells_N4 = raster_cells(rows, columns).to(index_N.device).repeat(frames, 1)
            grid = (rows, columns)
            images.append(Image(index_N, cells_N4, grid if frames == 1 else None, (grid,) * frames))
            start += count
        return images

    @property
    def tokens(self) -> int:
        """Vision tokens of all images."""
        return sum(len(image.index_N) for image in self.images)

    def by_token(self, values_PC: Tensor) -> Tensor:
        """Merge `[patches, C]` by the mean over each group and undo the order of the windows: `[T, C]`."""
        merged_TC = values_PC.view(-1, self.merge, values_PC.shape[-1]).mean(dim=1)
        if not hasattr(self.tower, "window_size"):
            return merged_TC
        window_index, _ = get_vision_window_index(
            self.grid_thw,
            spatial_merge_size=self.tower.spatial_merge_size,
            window_size=self.tower.window_size,
            patch_size=self.tower.patch_size,
        )
        return merged_TC[window_index.to(merged_TC.device).argsort()]

    @property
    def projections(self) -> Tensor:
        """Queries, keys and values of all patches, `[patches, 3, heads, d]`, before the rotary embedding."""
        if self.projected is None:
            raise RuntimeError(NOT_RUN)
        return self._by_head(self.projected)

    def _by_head(self, projected: Tensor) -> Tensor:
        return projected.unflatten(1, (3, self.tower.config.num_heads, -1))

    def attention_HT(self) -> Tensor:
        """Mean attention received."""
        return self._received(*self._turned(self.projections, self.call), self.call)

    def further_attention_HT(self, number: int) -> Tensor:
        """The same in a block of `Vision.watch_attention`."""
        if number not in self.further_projected:
            raise RuntimeError(NOT_RUN)
        call = self.further_calls[number]
        return self._received(*self._turned(self._by_head(self.further_projected[number]), call), call)

    def _turned(self, projections: Tensor, call: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Queries and keys of all patches with the rotary embedding."""
        queries, keys, _ = projections.unbind(1)
        return apply_rotary_pos_emb_vision(queries, keys, *call["position_embeddings"])

    def frame_attention_T(self) -> Tensor:
        """Attention of the mean query of every frame over the keys of its merged tokens, mean over heads."""
        queries, keys = self._turned(self.projections, self.call)
        keys = keys.unflatten(0, (-1, self.merge)).mean(dim=1)
        lengths = self._lengths(self.call)
        rows = [
            attention_rows(q.mean(dim=0)[None, :, None], k.transpose(0, 1)[None])[0, :, 0].mean(dim=0)
            for q, k in zip(queries.split(lengths), keys.split([n // self.merge for n in lengths]), strict=True)
        ]
        return self.by_token(torch.cat(rows).repeat_interleave(self.merge)[:, None])[:, 0]

    def wide_attention_T(self) -> Tensor:
        """The same of all heads as one, before any rotary embedding."""
        queries, keys, _ = self.projections.flatten(2)[:, :, None].unbind(1)
        return self._received(queries, keys, self.call)[0]

    def _lengths(self, call: dict[str, Any]) -> list[int]:
        """Patches that see one another, of all frames (or windows) one after the other."""
        bounds = call["cu_seqlens"]
        return [int(length) for length in (bounds[1:] - bounds[:-1]).tolist()]

    def _received(self, queries: Tensor, keys: Tensor, call: dict[str, Any]) -> Tensor:
        """Mean attention received from the patches of the same image, `[H, T]`, of `[patches, H, d]` each."""
        lengths = self._lengths(call)
        received = [
            received_attention(q.transpose(0, 1)[None], k.transpose(0, 1)[None])[0]
            for q, k in zip(queries.split(lengths), keys.split(lengths), strict=True)
        ]
        return self.by_token(torch.cat(received, dim=1).T).T

    def features_TC(self) -> Tensor:
        """Output of the observed block."""
        if self.output is None:
            raise RuntimeError(NOT_RUN)
        return self.by_token(self.output)

    def keys_I(self) -> Tensor:
        """int64, a number for every image from its pixels."""
        patches = self.grid_thw.prod(dim=-1).tolist()
        return torch.stack([keys.sum() for keys in pixel_keys(self.pixel_values).split(patches)])


class QwenVision(Vision):
    """Qwen towers, without [CLS]. With images and videos in one call of the model, those of both runs."""

    def __init__(self, tower: Any, layer: int) -> None:
        super().__init__(tower, tower.blocks)
        self.tower = tower
        self.runs: list[TowerRun] = []
        # Of the images in the order of the runs, those in the order of the prompts; None: the same.
        self._order: list[int] | None = None
        self._further: list[int] = []
        block = tower.blocks[layer]
        self._handles += [
            block.attn.register_forward_pre_hook(self._catch_call, with_kwargs=True),
            block.attn.qkv.register_forward_hook(self._catch_projected),
            block.register_forward_hook(self._catch_output),
        ]

    def _start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        earlier = self.runs if self.fresh else []
        self.forget()
        self.fresh = True
        self.pixel_values = args[0] if args else kwargs["hidden_states"]
        grid_thw = args[1] if len(args) > 1 else kwargs["grid_thw"]
        self.runs = [*earlier[-1:], TowerRun(self.tower, self.pixel_values, grid_thw)]

    def _catch_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.runs[-1].call = kwargs

    def _catch_projected(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.runs[-1].projected = output

    def watch_attention(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._refuse_other_than(number)
            self._further.append(number)
            attention = self.blocks[number].attn
            self._handles += [
                attention.register_forward_pre_hook(partial(self._catch_further_call, number), with_kwargs=True),
                attention.qkv.register_forward_hook(partial(self._catch_further, number)),
            ]

    def _catch_further_call(
        self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.runs[-1].further_calls[number] = kwargs

    def _catch_further(self, number: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.runs[-1].further_projected[number] = output

    @property
    def watched_attention(self) -> list[Tensor]:
        return [self._joined(1, partial(TowerRun.further_attention_HT, number=number)) for number in self._further]

    @property
    def watched_received(self) -> list[Tensor]:
        return self.watched_attention

    def _catch_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.runs[-1].output = output

    def _catch_block(self, number: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.runs[-1].watched[number] = output

    def forget(self) -> None:
        super().forget()
        self.runs = []
        self._order = None

    def settle(self, runs: int) -> None:
        # One before these was for features that the caller asked the model for.
        self.runs = self.runs[-runs:]

    def interleave(self, video: Sequence[bool]) -> None:
        images, videos = (iter(range(len(run.images))) for run in self.runs)
        still = len(self.runs[0].images)
        lengths = [len(image.index_N) for run in self.runs for image in run.images]
        order: list[int] = []
        start = 0
        while start < len(video):
            number = next(videos, None) if video[start] else next(images, None)
            if number is None:
                raise ValueError("images and videos do not follow each other as their placeholders in the prompts do")
            order.append(number + still if video[start] else number)
            start += lengths[order[-1]]
        self._order = order
        self.__dict__.pop("images", None)

    def _joined(self, dim: int, values: Callable[[TowerRun], Tensor]) -> Tensor:
        """What was worked out of each run, one after the other."""
        if not self.runs:
            raise RuntimeError(NOT_RUN)
        parts = [values(run) for run in self.runs]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)

    @property
    def watched_blocks(self) -> list[Tensor]:
        return [torch.cat([run.by_token(run.watched[number]) for run in self.runs]) for number in self._watched]

    @cached_property
    def images(self) -> list[Image]:
        images, start = [], 0
        for run in self.runs:
            images += [image._replace(index_N=image.index_N + start) for image in run.images]
            start += run.tokens
        return images if self._order is None else [images[number] for number in self._order]

    @cached_property
    def attention_HT(self) -> Tensor:
        return self._joined(1, TowerRun.attention_HT)

    @cached_property
    def features_TC(self) -> Tensor:
        return self._joined(0, TowerRun.features_TC)

    @cached_property
    def frame_attention_T(self) -> Tensor:
        return self._joined(0, TowerRun.frame_attention_T)

    @cached_property
    def head_keys_TC(self) -> Tensor:
        return self._joined(0, lambda run: run.by_token(run.projections[:, 1].mean(dim=1)))

    # Behind the observed layer windows may follow, whose queries see few of the keys: it stands in for the last one.
    @cached_property
    def wide_attention_T(self) -> Tensor:
        return self._joined(0, TowerRun.wide_attention_T)

    @cached_property
    def wide_keys_TC(self) -> Tensor:
        return self._joined(0, lambda run: run.by_token(run.projections[:, 1].flatten(1)))

    @cached_property
    def keys_I(self) -> Tensor:
        keys_I = self._joined(0, TowerRun.keys_I)
        return keys_I if self._order is None else keys_I[torch.tensor(self._order, device=keys_I.device)]
