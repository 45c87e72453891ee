"""The visual tokens under evidence boxes."""

import numpy as np

from experiments.asking.evidence import evidence_of, evidence_tokens


def test_evidence_is_every_cell_that_a_box_overlaps_and_none_that_it_borders() -> None:
    # A 4 x 4 raster: cells of a quarter. The first box fills two cells exactly, the second lies inside one.
    evidence = evidence_tokens([[0.25, 0.0, 0.75, 0.25], [0.8, 0.8, 0.9, 0.9]], 4, 4)
    assert np.flatnonzero(evidence).tolist() == [1, 2, 15]
    assert evidence_of([[0.2, 0.2, 0.3, 0.3]], 16) == [0, 1, 4, 5]
    assert evidence_of([], 16) == []
    assert evidence_of([[0.2, 0.2, 0.3, 0.3]], 15) is None, "no square raster"
