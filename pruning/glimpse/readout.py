"""What the predictor looks at: one attention row of the glimpse token, and features of the vision tower."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning.engine.before import place_images
from pruning.engine.tokens import upload
from pruning.glimpse.configuration import GlimpseConfig
from pruning.glimpse.modules import GlimpseModules
from pruning.glimpse.predictor import raster_positions
from pruning.models.family import Family
from pruning.models.projections import Projections, attention_logits
from pruning.models.vision import Vision


@dataclass(frozen=True)
class Importance:
    """The predictor's output for a batch.

    Attributes:
        logits_N: float, of all visual tokens, samples one after the other in the order of the prompts.
        image_tokens: for every sample, the visual tokens of every image or video.
        grids: for every sample, for every image (or temporal patch of a video) its rows and columns of tokens.
    """

    logits_N: Tensor
    grids: list[list[tuple[int, int]]]
    image_tokens: list[list[int]]

    @property
    def tokens_per_sample(self) -> list[int]:
        """Visual tokens of each sample."""
        return [sum(rows * columns for rows, columns in grids) for grids in self.grids]


def vision_blocks(family: Family, config: GlimpseConfig) -> list[int]:
    """0-based blocks of the vision tower whose outputs the predictor's layers see."""
    # LLaVA's checkpoints number CLIP's hidden states, of which the first are the embeddings.
    first = 0 if family.mrope else 1
    return [layer - first for layer in config.selected_visual_layers]


def glimpse_row(
    projections: Projections, glimpse_B1: Tensor, mask_BS: Tensor | None, *, before_softmax: bool
) -> Tensor:
    """The attention row of one query per sample over all tokens, `[B, H, S]`, at least float32.

    Args:
        projections: of the decoder layer that just ran.
        glimpse_B1: int64 place of the query.
        mask_BS: bool, False for padding; None where there is none.
        before_softmax: the scaled products themselves, or their log-softmax over all tokens that the query sees.
    """
    keys_BGSd = projections.keys()
    logits_BHS = attention_logits(projections.queries(glimpse_B1), keys_BGSd)[:, :, 0]
    if before_softmax:
        return logits_BHS
    seen_BS = torch.arange(keys_BGSd.shape[2], device=glimpse_B1.device) <= glimpse_B1
    if mask_BS is not None:
        seen_BS = seen_BS & mask_BS
    return logits_BHS.masked_fill(~seen_BS[:, None], float("-inf")).log_softmax(dim=-1)


def importance(
    modules: GlimpseModules, vision: Vision, row_BHS: Tensor, visual_BS: Tensor, visual: Sequence[int]
) -> Importance:
    """Run the predictor on a batch of samples, at least one of which has images.

    Args:
        modules: where its parameters are; its inputs take their dtype.
        vision: the run of the tower on all images of the batch, with the blocks of `vision_blocks` watched.
        row_BHS: the glimpse token's attention row.
        visual_BS: bool, the visual tokens, all of every image.
        visual: how many these are in each sample.

    Raises:
        ValueError: the visual tokens of an image form no raster, or are not all there.
    """
    grids, image_tokens = visual_grids(vision, visual)
    device, dtype = row_BHS.device, modules.le_proj.weight.dtype
    blocks = [grid for own in grids for grid in own]
    index_N = torch.cat([image.index_N for image in vision.images])
    conditions_LNC = torch.stack([features_TC[index_N] for features_TC in vision.watched_blocks])
    logits_N = modules.attn_fuser(
        row_BHS.transpose(1, 2)[visual_places(visual_BS, visual)].to(dtype),
        conditions_LNC.to(device, dtype),
        raster_positions(blocks).to(device),
        [rows * columns for rows, columns in blocks],
    )
    return Importance(logits_N, grids, image_tokens)


def visual_grids(vision: Vision, visual: Sequence[int]) -> tuple[list[list[tuple[int, int]]], list[list[int]]]:
    """For every sample the grids and the visual tokens of its images, as `Importance` has them.

    Raises:
        ValueError: the visual tokens of an image form no raster, or are not all there.
    """
    grids: list[list[tuple[int, int]]] = [[] for _ in visual]
    image_tokens: list[list[int]] = [[] for _ in visual]
    places = place_images([len(image.index_N) for image in vision.images], visual)
    for image, (sample, _) in zip(vision.images, places, strict=True):
        if not image.rasters:
            raise ValueError("the visual tokens of an image must form a raster: not LLaVA-NeXT, not [CLS] among them")
        grids[sample] += image.rasters
        image_tokens[sample].append(len(image.index_N))
    return grids, image_tokens


def visual_places(visual_BS: Tensor, visual: Sequence[int]) -> tuple[Tensor, Tensor]:
    """int64 rows and columns `[N]` of the visual tokens, row by row.

    Args:
        visual_BS: bool, True for visual tokens.
        visual: how many these are in each row: the device need not be asked.
    """
    # The first places of a stable sort are the visual tokens in their order.
    columns_BS = (~visual_BS).to(torch.uint8).argsort(dim=1, stable=True)
    rows_N = upload([row for row, count in enumerate(visual) for _ in range(count)], visual_BS.device)
    return rows_N, columns_BS[rows_N, upload([place for count in visual for place in range(count)], visual_BS.device)]
