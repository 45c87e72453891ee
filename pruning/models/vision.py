"""What a vision tower computed for the images of a batch, caught by hooks and worked out only when asked.

A flat row of T vision tokens (no [CLS], after any patch merger) underlies every family; every image has an index map
from its visual tokens in the prompt into that row, so that LLaVA-NeXT's crops, unpadding and newlines and Qwen's
windows are handled once. Shape suffixes: T vision tokens, N visual tokens of one image, H heads, C width.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning.models.hooks import Hooks

NOT_RUN = "the vision tower has not run inside this context: pass pixel_values"


class Image(NamedTuple):
    """One image or video as the language model gets it.

    Attributes:
        index_N: int64, the vision token behind every visual token.
        cells_N4: x0, y0, x1, y1 in 0..1 of the part of the image that every visual token stands for; NaN for none.
        grid: rows and columns where the visual tokens form one raster, else None.
        rasters: rows and columns of every raster they form, one for each temporal patch of a video; () if they do not.
    """

    index_N: Tensor
    cells_N4: Tensor
    grid: tuple[int, int] | None
    rasters: tuple[tuple[int, int], ...] = ()


class Vision(Hooks):
    """The latest run of a vision tower. Subclasses know one kind of tower.

    Attributes:
        pixel_values: what went in, None before the first run.
        fresh: whether it has run since the engine last set this to False.
    """

    def __init__(self, tower: Any, blocks: Any) -> None:
        super().__init__()
        self.pixel_values: Tensor | None = None
        self.fresh = False
        self.blocks = blocks
        self._watched: list[int] = []
        self._outputs: dict[int, Tensor] = {}
        self._handles += [tower.register_forward_pre_hook(self._start, with_kwargs=True)]

    def _start(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.forget()
        self.fresh = True
        self.pixel_values = args[0] if args else kwargs["pixel_values"]

    def watch_blocks(self, numbers: Sequence[int]) -> None:
        """From now on also catch the outputs of these blocks of the tower, 0-based.

        Raises:
            ValueError: the tower has no such block.
        """
        for number in numbers:
            self._refuse_other_than(number)
            self._watched.append(number)
            self._handles.append(self.blocks[number].register_forward_hook(partial(self._catch_block, number)))

    def _refuse_other_than(self, number: int) -> None:
        if not 0 <= number < len(self.blocks):
            raise ValueError(f"the vision tower has blocks 0..{len(self.blocks) - 1}, not {number}")

    def watch_attention(self, numbers: Sequence[int]) -> None:
        """From now on also catch the queries and keys of these blocks of the tower, 0-based.

        Raises:
            ValueError: the tower has no such block.
        """
        raise NotImplementedError

    @property
    def watched_attention(self) -> list[Tensor]:
        """As `attention_HT`, of every block of `watch_attention` in its order."""
        raise NotImplementedError

    @property
    def watched_received(self) -> list[Tensor]:
        """The mean attention that every vision token receives in these blocks over all queries, `[H, T]` each."""
        raise NotImplementedError

    def _catch_block(self, number: int, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._outputs[number] = output

    @property
    def watched_blocks(self) -> list[Tensor]:
        """Outputs of the blocks of `watch_blocks` in its order, of every vision token: `[T, C]` each."""
        return [self.by_token(self._outputs[number]) for number in self._watched]

    def by_token(self, output: Tensor) -> Tensor:
        """What a block of the tower gives, per vision token: `[T, C]`."""
        raise NotImplementedError

    @property
    def has_run(self) -> bool:
        return self.pixel_values is not None

    def forget(self) -> None:
        """Let go of the latest run."""
        self.pixel_values = None
        self._outputs.clear()
        for name, value in vars(Vision).items():
            if isinstance(value, cached_property):
                self.__dict__.pop(name, None)

    def settle(self, runs: int) -> None:
        """Take the latest runs, one or two, for those of a prompt; most towers remember only one."""

    def interleave(self, video: Sequence[bool]) -> None:
        """Put images and videos, which the tower ran on apart, in the order of the prompts.

        Args:
            video: for every visual token of all samples whether it belongs to a video.

        Raises:
            ValueError: there are no such images and videos.
        """
        raise NotImplementedError

    @cached_property
    def images(self) -> list[Image]:
        """The images in the order of the prompt."""
        raise NotImplementedError

    @cached_property
    def attention_HT(self) -> Tensor:
        """Attention of [CLS], or the mean attention received where there is none, of every vision token; float32."""
        raise NotImplementedError

    @cached_property
    def frame_attention_T(self) -> Tensor:
        """Attention of the mean query of every frame over its merged keys, mean over heads; towers that take videos."""
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
        raise RuntimeError(NOT_RUN)
    whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[pixels.element_size()]
    return pixels.contiguous().view(whole).long().flatten(1).sum(dim=1)


def touched(cells_N4: Tensor, boxes_J4: Tensor) -> Tensor:
    """Which tokens each box touches by more than an edge, bool `[J, N]`; both as x0, y0, x1, y1.

    Tokens whose cell is NaN (newlines) are touched by none.
    """
    low_JN2 = torch.maximum(cells_N4[:, :2], boxes_J4[:, None, :2])
    high_JN2 = torch.minimum(cells_N4[:, 2:], boxes_J4[:, None, 2:])
    return (low_JN2 < high_JN2).all(dim=-1)
