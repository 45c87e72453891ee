"""How well a set of kept visual tokens matches the evidence: the mask measures of GlimpsePrune's evaluation."""

from typing import NamedTuple

import numpy as np


class MaskQuality(NamedTuple):
    """Shares in 0..1: of the union that is common, of the kept that is evidence, of the evidence that is kept."""

    iou: float
    precision: float
    recall: float
    f1: float


def mask_quality(kept_N: np.ndarray, evidence_N: np.ndarray) -> MaskQuality:
    """Intersection over union, precision, recall and F1 of one question's mask.

    Args:
        kept_N, evidence_N: bool, of the same visual tokens. Nothing kept has precision 0.

    Raises ValueError where no token is evidence, or the masks differ in length.
    """
    if kept_N.shape != evidence_N.shape or not evidence_N.any():
        raise ValueError("a mask is compared with evidence of the same visual tokens, at least one of them True")
    common, kept, evidence = ((kept_N & evidence_N).sum(), kept_N.sum(), evidence_N.sum())
    return MaskQuality(
        iou=float(common / (kept + evidence - common)),
        precision=float(common / kept) if kept else 0.0,
        recall=float(common / evidence),
        f1=float(2 * common / (kept + evidence)),
    )
