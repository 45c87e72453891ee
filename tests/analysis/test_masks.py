"""What is kept against what is evidence."""

import numpy as np
import pytest

from analysis.masks import MaskQuality, mask_quality


def mask(*true: int, size: int = 8) -> np.ndarray:
    return np.isin(np.arange(size), true)


def test_counted_by_hand() -> None:
    # Two of three kept are evidence, two of four evidence tokens are kept, five tokens are either.
    measured = mask_quality(mask(0, 1, 7), mask(0, 1, 2, 3))
    assert measured == pytest.approx(MaskQuality(iou=2 / 5, precision=2 / 3, recall=1 / 2, f1=4 / 7))
    assert measured.f1 == pytest.approx(2 * measured.precision * measured.recall / (measured.precision + 0.5))


def test_the_ends() -> None:
    assert mask_quality(mask(3, 4), mask(3, 4)) == MaskQuality(1, 1, 1, 1)
    assert mask_quality(mask(1), mask(2)) == mask_quality(mask(), mask(2)) == MaskQuality(0, 0, 0, 0)
    everything = mask_quality(mask(*range(8)), mask(5, 6))
    assert everything == pytest.approx(MaskQuality(iou=0.25, precision=0.25, recall=1, f1=0.4))


@pytest.mark.parametrize("evidence", [mask(), mask(1, size=9)])
def test_no_evidence_or_another_image_s_is_an_error(evidence: np.ndarray) -> None:
    with pytest.raises(ValueError, match="same visual tokens, at least one of them True"):
        mask_quality(mask(1), evidence)
