"""The CLIP-like vision towers of the LLaVA families: where attention, features and layout are caught."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, wraps
from typing import Any

import torch
from torch import Tensor, nn

from pruning.models.projections import Projections, Watch, received_attention
from pruning.models.vision import NOT_RUN, Image, Vision, pixel_keys, raster_cells

NEWLINE = -1.0


class PatchVision(Vision):
    """CLIP-like towers over square images (LLaVA): patches in raster order behind an optional [CLS]."""

    def __init__(self, tower: Any, layer: int, *, keeps_cls: bool) -> None:
        super().__init__(tower, tower.encoder.layers)
        self.has_cls = hasattr(tower.embeddings, "class_embedding")
        self.keeps_cls = keeps_cls and self.has_cls
        block = tower.encoder.layers[layer]
        self.watch = Watch(block.self_attn)
        self.last_watch = Watch(tower.encoder.layers[-1].self_attn)
        self._further: list[Watch] = []
        self.output_BSC: Tensor | None = None
        self._handles.append(block.register_forward_hook(self._catch_output))

    def _catch_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.output_BSC = output

    def forget(self) -> None:
        super().forget()
        for watch in (self.watch, self.last_watch, *self._further):
            watch.forget()
        self.output_BSC = None

    def detach(self) -> None:
        super().detach()
        for watch in (self.watch, self.last_watch, *self._further):
            watch.detach()

    def watch_attention(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._refuse_other_than(number)
            self._further.append(Watch(self.blocks[number].self_attn))

    @property
    def watched_attention(self) -> list[Tensor]:
        return [self._attention(watch.projections).transpose(0, 1).flatten(1) for watch in self._further]

    @property
    def watched_received(self) -> list[Tensor]:
        self._refuse_cls_in_prompt()
        received = [received_attention(one.queries(), one.keys()) for one in (w.projections for w in self._further)]
        return [(each[..., 1:] if self.has_cls else each).transpose(0, 1).flatten(1) for each in received]

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
