"""The supervision of the predictor: boxes as token masks, and the Dice and cross-entropy losses on its logits."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

DICE_EPSILON = 1e-6
DICE_WEIGHT, BCE_WEIGHT = 1.0, 0.1


def box_mask(boxes: Sequence[Sequence[float]], rows: int, columns: int) -> Tensor:
    """The tokens of a raster that boxes cover: bool `[rows, columns]`, the union over the boxes.

    From the cell of the upper left corner to that of the lower right one, both included. A box that starts at the right
    or lower edge covers nothing; coordinates outside 0..1 are those of the part inside.

    Args:
        boxes: x1, y1, x2, y2 of each box in 0..1 of the image as the vision tower sees it.
    """
    mask_RC = torch.zeros(rows, columns, dtype=torch.bool)
    for x1, y1, x2, y2 in boxes:
        top, left = int(max(0.0, y1) * rows), int(max(0.0, x1) * columns)
        bottom, right = min(int(y2 * rows), rows - 1), min(int(x2 * columns), columns - 1)
        if x2 >= 0 and y2 >= 0:
            mask_RC[top : bottom + 1, left : right + 1] = True
    return mask_RC


def predictor_losses(
    logits_N: Tensor, target_N: Tensor, tokens_per_sample: Sequence[int], epsilon: float = DICE_EPSILON
) -> tuple[Tensor, Tensor]:
    """Dice loss and binary cross-entropy, each per sample and then the mean over samples; samples without tokens aside.

    Args:
        logits_N: the predictor's output, samples one after the other.
        target_N: bool, True for tokens that matter.
        tokens_per_sample: visual tokens of each sample.
        epsilon: in both parts of the Dice fraction.
    """
    sizes = [size for size in tokens_per_sample if size > 0]
    pairs = list(zip(logits_N.split(sizes), target_N.to(logits_N.dtype).split(sizes), strict=True))
    dice = torch.stack([dice_loss(logits, target, epsilon) for logits, target in pairs]).mean()
    bce = torch.stack([binary_cross_entropy_with_logits(logits, target) for logits, target in pairs]).mean()
    return dice, bce


def dice_loss(logits_N: Tensor, target_N: Tensor, epsilon: float = DICE_EPSILON) -> Tensor:
    """1 - (2 sum pg + e) / (sum p + sum g + e) of one sample."""
    probability_N = logits_N.sigmoid()
    overlap = 2 * (probability_N * target_N).sum()
    return 1 - (overlap + epsilon) / (probability_N.sum() + target_N.sum() + epsilon)


def predictor_loss(logits_N: Tensor, target_N: Tensor, tokens_per_sample: Sequence[int]) -> Tensor:
    """1.0 x Dice + 0.1 x BCE, the predictor's part of the training loss."""
    dice, bce = predictor_losses(logits_N, target_N, tokens_per_sample)
    return DICE_WEIGHT * dice + BCE_WEIGHT * bce
