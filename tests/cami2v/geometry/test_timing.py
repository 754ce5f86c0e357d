from __future__ import annotations

import pytest
import torch

from cami2v.geometry.timing import (
    bezier_positions,
    bezier_progress,
    even_positions,
    excerpt_positions,
    there_and_back,
)
from cami2v.trajectories.presets import preset


def test_timing() -> None:
    assert even_positions(5, 3).tolist() == [0, 2, 4]
    assert excerpt_positions(9, 5, 0.5).tolist() == pytest.approx([0, 8 / 9, 16 / 9, 24 / 9, 32 / 9])
    assert excerpt_positions(9, 5, 1.7).tolist() == even_positions(9, 5).tolist()
    with pytest.raises(ValueError, match="ratio"):
        excerpt_positions(9, 5, 0.0)
    eased = bezier_positions(9, 0.5, 0.5)
    assert eased[0] == 0
    assert eased[-1] == 8
    assert (eased.diff() > 0).all()
    assert eased[1] < 0.5
    looped = there_and_back(preset("dolly_in", 3, 1.0))
    assert looped[:, 2, 3].tolist() == [0, 0.5, 1, 1, 0.5, 0]


@pytest.mark.parametrize("poses", [1, 2, 3])
def test_easing_short_paths_stays_on_them(poses: int) -> None:
    eased = bezier_positions(poses, 0.2, 0.8)
    assert eased.shape == (poses,)
    assert ((eased >= 0) & (eased <= poses - 1)).all()


@pytest.mark.parametrize("control", [(0.5, 0.0, 0.5, 1.0), (0.42, 0.0, 1.0, 1.0), (1.0, 0.0, 0.0, 1.0)])
def test_progress_over_time_lies_on_the_curve(control: tuple[float, float, float, float]) -> None:
    x1, y1, x2, y2 = control
    t = torch.linspace(0, 1, 37, dtype=torch.float64)
    early, late = 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2
    time, progress = early * x1 + late * x2 + t**3, early * y1 + late * y2 + t**3
    # Where the curve stands upright, any progress belongs to its time.
    tolerance = 1e-4 if control[0] == 1 else 1e-12
    torch.testing.assert_close(bezier_progress(time, control), progress, rtol=0, atol=tolerance)


def test_the_published_table_tends_to_the_curve() -> None:
    """Its N positions are interpolated between N points of the curve."""
    poses = 2001
    exact = bezier_progress(torch.linspace(0, 1, poses, dtype=torch.float64), (0.2, 0.0, 0.8, 1.0)) * (poses - 1)
    assert (bezier_positions(poses, 0.2, 0.8) - exact).abs().max() / poses < 1e-6
