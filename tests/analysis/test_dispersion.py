"""CDF and density from streamed sums agree with those from all values at once."""

import numpy as np
import pytest
import torch

from analysis.dispersion import Dispersion, density, resample_cdf


def rows_of(samples: int, tokens: int) -> torch.Tensor:
    """Attention rows over visual tokens and 5 other tokens, of which the visual ones are returned."""
    logits = 2 * torch.randn(samples, tokens + 5, generator=torch.Generator().manual_seed(0))
    return logits.softmax(-1)[:, :tokens]


def test_cdf_is_the_mean_of_the_samples_cdfs():
    rows = rows_of(20, 36)
    streamed = Dispersion(36)
    for batch in rows.split(6):
        streamed.add(batch)
    values = np.sort(rows.double().numpy(), axis=1)[:, ::-1]
    expected = np.mean([np.cumsum(row / row.sum()) for row in values], axis=0)
    np.testing.assert_allclose(streamed.arrays()["cdf"], expected, atol=1e-12)


def test_density_equals_the_histogram_of_all_values_over_the_largest():
    rows = rows_of(400, 144)
    streamed = Dispersion(144)
    for batch in rows.split(64):
        streamed.add(batch)
    arrays = streamed.arrays()
    x, y = density(arrays["counts"], float(arrays["largest"]))
    values = rows.double().numpy().ravel()
    expected, edges = np.histogram(values / values.max(), bins=200, range=(0, 1), density=True)
    np.testing.assert_allclose(x, (edges[1:] + edges[:-1]) / 2)
    # A value within 1e-6 of an edge may be counted next door: few of 57,600 are.
    assert np.abs(y - expected).sum() / 200 < 1e-3
    assert y.sum() / 200 == pytest.approx(1)
    assert y[-1] > 0, "the largest value lies in the last bin"


def test_state_does_not_grow_with_samples():
    streamed = Dispersion(36)
    streamed.add(rows_of(2, 36))
    shapes = {name: array.shape for name, array in streamed.arrays().items()}
    for _ in range(5):
        streamed.add(rows_of(50, 36))
    assert {name: array.shape for name, array in streamed.arrays().items()} == shapes


def test_uniform_attention_gives_a_straight_cdf():
    share, held = resample_cdf(np.arange(1, 37) / 36)
    np.testing.assert_allclose(held, share, atol=1e-12)
    assert len(share) == 200
    assert share[-1] == held[-1] == 1


def test_concentrated_attention_is_held_by_few_tokens():
    share, held = resample_cdf(np.array([0.9, 1.0, 1.0, 1.0]))
    assert held[share == 0.25] == pytest.approx(0.9)


@pytest.mark.parametrize("rows", [torch.zeros(1, 4), torch.full((1, 4), -0.1), torch.full((1, 4), 1.5)])
def test_only_attention_is_counted(rows):
    with pytest.raises(ValueError, match="post-softmax"):
        Dispersion(4).add(rows)


def test_rows_of_another_length_are_refused():
    with pytest.raises(ValueError, match="expected rows over 4 visual tokens, got 5"):
        Dispersion(4).add(torch.full((1, 5), 0.1))
