"""The vision towers of the supported families: where attention, features and layout are caught."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.vision_utils import get_vision_window_index

from pruning.observe import Projections, Watch, received_attention
from pruning.vision import Image, Vision, pixel_keys, raster_cells

NEWLINE = -1.0
NOT_RUN = "the vision tower has not run inside this context: pass pixel_values"


class PatchVision(Vision):
    """CLIP-like towers over square images (LLaVA): patches in raster order behind an optional [CLS]."""

    def __init__(self, tower: Any, layer: int, *, keeps_cls: bool) -> None:
        super().__init__(tower, tower.encoder.layers)
        self.has_cls = hasattr(tower.embeddings, "class_embedding")
        self.keeps_cls = keeps_cls and self.has_cls
        block = tower.encoder.layers[layer]
        self.watch = Watch(block.self_attn)
        self.last_watch = Watch(tower.encoder.layers[-1].self_attn)
        self.output_BSC: Tensor | None = None
        self._handles.append(block.register_forward_hook(self._catch_output))

    def _catch_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.output_BSC = output

    def forget(self) -> None:
        super().forget()
        self.watch.forget()
        self.last_watch.forget()
        self.output_BSC = None

    def detach(self) -> None:
        super().detach()
        self.watch.detach()
        self.last_watch.detach()

    @property
    def patches_BNC(self) -> Tensor:
        """Features of the patches of every crop, `[crops, N, C]`."""
        if self.output_BSC is None:
            raise RuntimeError(NOT_RUN)
        return self.output_BSC[:, 1:] if self.has_cls else self.output_BSC

    @cached_property
    def images(self) -> list[Image]:
        crops, count, _ = self.patches_BNC.shape
        index_BN = torch.arange(crops * count, device=self.patches_BNC.device).view(crops, count)
        side = round(count**0.5)
        cells_N4 = raster_cells(side, side).to(index_BN.device)
        if self.keeps_cls:  # the [CLS] of the prompt has no vision token of its own: methods that need one refuse below
            index_BN = torch.cat([index_BN[:, :1], index_BN], dim=1)
            cells_N4 = torch.cat([torch.full_like(cells_N4[:1], float("nan")), cells_N4])
        grid = None if self.keeps_cls else (side, side)
        return [Image(index_N, cells_N4, grid, () if grid is None else (grid,)) for index_N in index_BN]

    def _refuse_cls_in_prompt(self) -> None:
        if self.keeps_cls:
            raise ValueError(
                "this method ranks patches, but vision_feature_select_strategy='full' puts [CLS] among the visual "
                "tokens: set model.config.vision_feature_select_strategy = 'default'"
            )

    @cached_property
    def attention_HT(self) -> Tensor:
        return self._attention(self.watch.projections).transpose(0, 1).flatten(1)

    def _attention(self, projections: Projections) -> Tensor:
        self._refuse_cls_in_prompt()
        if self.has_cls:
            return projections.cls_row()
        return received_attention(projections.queries(), projections.keys())

    @cached_property
    def features_TC(self) -> Tensor:
        self._refuse_cls_in_prompt()
        return self.patches_BNC.flatten(0, 1)

    @cached_property
    def cls_IC(self) -> Tensor | None:
        return self._cls_BC

    @property
    def _cls_BC(self) -> Tensor | None:
        """Features of [CLS] of every crop."""
        if self.output_BSC is None:
            raise RuntimeError(NOT_RUN)
        return self.output_BSC[:, 0] if self.has_cls else None

    @cached_property
    def head_keys_TC(self) -> Tensor:
        projections = self.watch.projections
        return self.by_token(projections.keys_BSC).unflatten(-1, (-1, projections.head_dim)).mean(dim=1)

    @cached_property
    def wide_attention_T(self) -> Tensor:
        projections = self.last_watch.projections
        return self._attention(replace(projections, head_dim=projections.keys_BSC.shape[-1])).flatten()

    @cached_property
    def wide_keys_TC(self) -> Tensor:
        return self.by_token(self.last_watch.projections.keys_BSC)

    def by_token(self, values_BSC: Tensor) -> Tensor:
        """`[crops * N, C]`, without [CLS]."""
        return (values_BSC[:, 1:] if self.has_cls else values_BSC).flatten(0, 1)

    @cached_property
    def keys_I(self) -> Tensor:
        return pixel_keys(self.pixel_values).view(len(self.images), -1).sum(dim=1)


class CropVision(PatchVision):
    """LLaVA-NeXT: a base crop and a grid of crops, unpadded, merged into one raster with a newline after every row.

    The model's own packing function is asked where every token goes. It is reached by shadowing it on this one
    instance, since the image sizes it gets appear in no module's call when `generate` encodes images beforehand.
    """

    def __init__(self, model: Any, layer: int) -> None:
        super().__init__(model.vision_tower, layer, keeps_cls=False)
        self.model = model
        self.pack: Callable[..., Any] = model.pack_image_features
        self.image_sizes: Tensor | None = None
        self.crops: list[int] = []

        @wraps(self.pack)
        def caught(image_features: Any, image_sizes: Any, *args: Any, **kwargs: Any) -> Any:
            self.image_sizes = image_sizes
            self.crops = [len(crops) for crops in image_features]
            return self.pack(image_features, image_sizes, *args, **kwargs)

        model.pack_image_features = caught

    def detach(self) -> None:
        super().detach()
        del self.model.pack_image_features

    @cached_property
    def images(self) -> list[Image]:
        crops, count, _ = self.patches_BNC.shape
        # On the CPU, whose floats hold every index: the layout then costs the device no synchronisation.
        index_BN1 = torch.arange(crops * count, dtype=torch.float64).view(crops, count, 1)
        newline_1 = torch.tensor([NEWLINE], dtype=torch.float64)
        packed, _ = self.pack(index_BN1.split(self.crops), self.image_sizes, "default", image_newline=newline_1)
        return [self._image(index_N1[:, 0], crops) for index_N1, crops in zip(packed, self.crops, strict=True)]

    def _image(self, index_N: Tensor, crops: int) -> Image:
        count = self.patches_BNC.shape[1]
        side = round(count**0.5)
        newline_N = index_N == NEWLINE
        index_N = torch.where(newline_N, index_N.roll(1), index_N).long()
        cells_N4 = raster_cells(side, side)
        nothing_14 = torch.full_like(cells_N4[:1], float("nan"))
        if crops == 1:
            cells_N4 = torch.cat([cells_N4, nothing_14])
        else:
            rows = int(newline_N.sum())
            columns = (len(index_N) - count) // rows - 1
            fine_RC4 = raster_cells(rows, columns).view(rows, columns, 4)
            fine_RC4 = torch.cat([fine_RC4, nothing_14.expand(rows, 1, 4)], dim=1)
            cells_N4 = torch.cat([cells_N4, fine_RC4.flatten(0, 1)])
        device = self.patches_BNC.device
        return Image(index_N.to(device), cells_N4.to(device), None)

    @cached_property
    def cls_IC(self) -> Tensor | None:
        cls_BC = self._cls_BC
        return None if cls_BC is None else torch.stack([crops_BC[0] for crops_BC in cls_BC.split(self.crops)])

    @cached_property
    def keys_I(self) -> Tensor:
        return torch.stack([keys.sum() for keys in pixel_keys(self.pixel_values).split(self.crops)])


class MergedVision(Vision):
    """Qwen towers: no [CLS], images of any size one after the other, patches merged 2x2, windows undone."""

    def __init__(self, tower: Any, layer: int) -> None:
        super().__init__(tower, tower.blocks)
        self.tower = tower
        self.merge = tower.spatial_merge_size**2
        self.grid_thw: Any = None
        self.call: dict[str, Any] = {}
        self.projected: Tensor | None = None
        self.output: Tensor | None = None
        block = tower.blocks[layer]
        self._handles += [
            block.attn.register_forward_pre_hook(self._catch_call, with_kwargs=True),
            block.attn.qkv.register_forward_hook(self._catch_projected),
            block.register_forward_hook(self._catch_output),
        ]

    def _start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.forget()
        self.fresh = True
        self.pixel_values = args[0] if args else kwargs["hidden_states"]
        self.grid_thw = args[1] if len(args) > 1 else kwargs["grid_thw"]

    def _catch_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.call = kwargs

    def _catch_projected(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.projected = output

    def _catch_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.output = output

    def forget(self) -> None:
        super().forget()
        self.grid_thw = self.projected = self.output = None
        self.call = {}

    @property
    def patches(self) -> list[int]:
        """Patches of every image before merging."""
        return self.grid_thw.prod(dim=-1).tolist()

    @cached_property
    def images(self) -> list[Image]:
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
    def _projections(self) -> Tensor:
        """Queries, keys and values of all patches, `[patches, 3, heads, d]`, before the rotary embedding."""
        if self.projected is None:
            raise RuntimeError(NOT_RUN)
        return self.projected.unflatten(1, (3, self.tower.config.num_heads, -1))

    @cached_property
    def attention_HT(self) -> Tensor:
        queries, keys, _ = self._projections.unbind(1)
        return self._received(*apply_rotary_pos_emb_vision(queries, keys, *self.call["position_embeddings"]))

    def _received(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Mean attention received from the patches of the same image, `[H, T]`, of `[patches, H, d]` each."""
        bounds = self.call["cu_seqlens"]
        lengths = (bounds[1:] - bounds[:-1]).tolist()
        received = [
            received_attention(q.transpose(0, 1)[None], k.transpose(0, 1)[None])[0]
            for q, k in zip(queries.split(lengths), keys.split(lengths), strict=True)
        ]
        return self.by_token(torch.cat(received, dim=1).T).T

    @cached_property
    def features_TC(self) -> Tensor:
        if self.output is None:
            raise RuntimeError(NOT_RUN)
        return self.by_token(self.output)

    @cached_property
    def head_keys_TC(self) -> Tensor:
        return self.by_token(self._projections[:, 1].mean(dim=1))

    # Behind the observed layer windows may follow, whose queries see few of the keys: it stands in for the last one.
    @cached_property
    def wide_attention_T(self) -> Tensor:
        queries, keys, _ = self._projections.flatten(2)[:, :, None].unbind(1)
        return self._received(queries, keys)[0]

    @cached_property
    def wide_keys_TC(self) -> Tensor:
        return self.by_token(self._projections[:, 1].flatten(1))

    @cached_property
    def keys_I(self) -> Tensor:
        return torch.stack([keys.sum() for keys in pixel_keys(self.pixel_values).split(self.patches)])
