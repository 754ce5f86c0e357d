"""The Frechet distance, also where covariances are singular."""

from __future__ import annotations

import pytest
import torch

from cami2v.evaluation.frechet import FeatureMoments, extrapolated_distance, frechet_distance


def gaussian(count: int, width: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, width), generator=generator, dtype=torch.float64) * scale + shift


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    return frechet_distance(FeatureMoments.of(first), FeatureMoments.of(second)).item()


@pytest.mark.parametrize("count", [8, 100])
def test_a_set_is_at_no_distance_from_itself(count):
    features = gaussian(count, 16, seed=0)
    assert distance(features, features) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("count", [8, 100])
def test_scaling_and_shifting_cost_what_they_do_for_gaussians(count):
    # Of the same features, scaled by s and shifted by m: |m|^2 + (1 - s)^2 tr(S), of any rank.
    features = gaussian(count, 16, seed=0) + torch.linspace(100, 200, 16, dtype=torch.float64)
    centre = features.mean(0)
    moved = (features - centre) * 1.5 + centre + 2
    expected = 16 * 4 + 0.25 * features.var(0).sum().item()
    assert distance(features, moved) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_of_different_directions():
    # Variance 1 along x against variance 1 along y: nothing in common, tr(S1) + tr(S2).
    line = torch.linspace(-1, 1, 50, dtype=torch.float64)
    line = line / line.std()
    along_x, along_y = torch.stack([line, 0 * line], 1), torch.stack([0 * line, line], 1)
    assert distance(along_x, along_y) == pytest.approx(2, rel=1e-9)


def test_sets_are_summed_batch_by_batch():
    features = gaussian(37, 8, seed=1, scale=0.1, shift=1000).float()
    parts = [FeatureMoments.of(part) for part in features.split(5)]
    joined = sum(parts[1:], parts[0])
    assert joined.count == 37
    torch.testing.assert_close(joined.mean, features.double().mean(0))
    torch.testing.assert_close(joined.covariance(), torch.cov(features.double().T), rtol=1e-6, atol=1e-9)


def test_one_video_and_unequal_widths_are_refused():
    with pytest.raises(ValueError, match="covariance of 1 feature vector"):
        distance(gaussian(1, 4, seed=0), gaussian(9, 4, seed=1))
    with pytest.raises(ValueError, match="features of 4 and 5 numbers"):
        distance(gaussian(9, 4, seed=0), gaussian(9, 5, seed=1))


def test_extrapolation_takes_the_bias_of_few_features_away():
    # Two samples of one distribution: the true distance is 0.
    first, second = gaussian(600, 16, seed=0), gaussian(600, 16, seed=1)
    blocks = [[FeatureMoments.of(each[block::10]) for block in range(10)] for each in (first, second)]
    found = extrapolated_distance(*blocks)
    assert found is not None
    assert abs(found) < distance(first, second) / 2
    assert extrapolated_distance(blocks[0][:2], blocks[1][:2]) is None
