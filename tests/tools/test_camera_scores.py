"""Ranking by camera scores: perturbed requests are what they claim to be, and correlations see the order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cami2v.evaluation.camera_metrics import camera_errors
from tools.camera_scores import correlations, figures, perturbed_paths


def walk() -> np.ndarray:
    path = np.tile(np.eye(4)[:3], (8, 1, 1))
    path[:, 0, 3] = -0.1 * np.arange(8)
    return path


def test_perturbed_paths_are_rigid_and_start_where_the_true_one_does() -> None:
    first, *others = perturbed_paths(walk(), 8, seed=0)
    np.testing.assert_array_equal(first, walk())
    assert len(others) == 8
    for kind, path in enumerate(others):
        np.testing.assert_allclose(
            path[:, :, :3] @ path[:, :, :3].transpose(0, 2, 1), np.tile(np.eye(3), (8, 1, 1)), atol=1e-12
        )
        errors = camera_errors(torch.from_numpy(walk()), torch.from_numpy(path))
        turned, moved = float(errors.rotation_radians.max()), float(errors.translation.max())
        assert (turned > 1e-3) == (kind % 4 != 2), "the third kind turns nothing"
        assert (moved > 1e-3) == (kind % 4 in (2, 3)), "only the last two kinds walk elsewhere"


def test_correlations_are_of_ranks() -> None:
    rows = np.array([[1.0, 10.0, 3.0], [2.0, 1000.0, 2.0], [3.0, 1001.0, 1.0]])
    assert correlations([rows, rows], 0, 1) == (pytest.approx(1.0), pytest.approx(1.0))
    assert correlations([rows, rows], 0, 2) == (pytest.approx(-1.0), pytest.approx(-1.0))


def test_figures_of_a_path_and_itself_are_small() -> None:
    assert max(figures(walk(), walk())) < 1e-3
