"""What a vision tower computed for the images of a batch, caught by hooks and worked out only when asked.

A flat row of T vision tokens (no [CLS], after any patch merger) underlies every family; every image has an index map
from its visual tokens in the prompt into that row, so that LLaVA-NeXT's crops, unpadding and newlines and Qwen's
windows are handled once. Shape suffixes: T vision tokens, N visual tokens of one image, H heads, C width.
"""

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Image(NamedTuple):
    """One image as the language model gets it.

    Attributes:
        index_N: int64, the vision token behind every visual token.
        cells_N4: x0, y0, x1, y1 in 0..1 of the part of the image that every visual token stands for; NaN for none.
        grid: rows and columns where the visual tokens form one raster, else None.
    """

    index_N: Tensor
    cells_N4: Tensor
    grid: tuple[int, int] | None


class Vision:
    """The latest run of a vision tower. Subclasses know one kind of tower.

    Attributes:
        pixel_values: what went in, None before the first run.
        fresh: whether it has run since the engine last set this to False.
    """

    def __init__(self, tower: Any) -> None:
        self.pixel_values: Tensor | None = None
        self.fresh = False
        self._handles = [tower.register_forward_pre_hook(self._start, with_kwargs=True)]

    def _start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.forget()
        self.fresh = True
        self.pixel_values = args[0] if args else kwargs["pixel_values"]

    @property
    def has_run(self) -> bool:
        return self.pixel_values is not None

    def forget(self) -> None:
        """Let go of the latest run."""
        self.pixel_values = None
        for name, value in vars(Vision).items():
            if isinstance(value, cached_property):
                self.__dict__.pop(name, None)

    def remove(self) -> None:
        """Take the hooks off and let go of the tensors."""
        for handle in self._handles:
            handle.remove()
        self.forget()

    @cached_property
    def images(self) -> list[Image]:
        """The images in the order of the prompt."""
        raise NotImplementedError

    @cached_property
    def attention_HT(self) -> Tensor:
        """Attention of [CLS], or the mean attention received where there is none, of every vision token; float32."""
        raise NotImplementedError

    @cached_property
    def features_TC(self) -> Tensor:
        """Features of every vision token that go into the projector or merger."""
        raise NotImplementedError

    @cached_property
    def cls_IC(self) -> Tensor | None:
        """Features of [CLS] of every image (of its base crop), from the layer of `features_TC`; None without [CLS]."""
        return None

    @cached_property
    def head_keys_TC(self) -> Tensor:
        """Attention keys of that layer, the mean over its heads, before any rotary embedding."""
        raise NotImplementedError

    @cached_property
    def wide_attention_T(self) -> Tensor:
        """As `attention_HT`, from the tower's last layer taken as a single head of the entire width."""
        raise NotImplementedError

    @cached_property
    def wide_keys_TC(self) -> Tensor:
        """Attention keys of the tower's last layer, heads not split, before any rotary embedding."""
        raise NotImplementedError

    @cached_property
    def keys_I(self) -> Tensor:
        """int64, a number for every image that depends on its pixels alone, for seeding choices by image."""
        raise NotImplementedError


def raster_cells(rows: int, columns: int) -> Tensor:
    """Cells of a raster over the unit square, row by row: float32 `[rows * columns, 4]` as x0, y0, x1, y1."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    edges = [column / columns, row / rows, (column + 1) / columns, (row + 1) / rows]
    return torch.stack(edges, dim=-1).flatten(0, 1)


def pixel_keys(pixels: Tensor | None) -> Tensor:
    """A number for every row of `pixels` from its bits: integer sums, so exact on any device and in any batch."""
    if pixels is None:
        raise RuntimeError("the vision tower has not run inside this context: pass pixel_values")
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[pixels.element_size()]
    return pixels.contiguous().view(whole).long().flatten(1).sum(dim=1)
