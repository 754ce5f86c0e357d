"""The robust ratio: what counts, what is refused, and how little wrong points move it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from cami2v.geometry.metric_scale import SeenPoints, at_points
from data_pipeline.metric_scale.estimate import Lack, ScaleEstimate, Unscaled, enough_points, estimate_scale
from data_pipeline.metric_scale.points import ClipPoints, FramePoints
from data_pipeline.metric_scale.settings import ScaleSettings

DEFAULTS: dict[str, Any] = {
    "depth_frames": 3,
    "depth_short_side": None,
    "max_sampson_pixels": 1.0,
    "min_parallax_degrees": 1.0,
    "nearest_metres": 0.1,
    "farthest_metres": 18.0,
    "min_points": 60,
    "max_spread": 0.3,
    "overwrite": False,
    "processes": 1,
}


def settings(**changes: Any) -> ScaleSettings:
    return ScaleSettings(**{**DEFAULTS, **changes})


def clip_points(frames: list[FramePoints], **counts: int) -> ClipPoints:
    zeros = {"matches": 0, "off_lines": 0, "behind": 0, "without_parallax": 0}
    return ClipPoints(frames=tuple(frames), **{**zeros, **counts})


def seen(scale: float, points: int, wrong: float = 0.0, noise: float = 0.0) -> tuple[ClipPoints, np.ndarray]:
    """Two frames over a 40 x 50 map of 2 to 8 metres; a share `wrong` of the points is at a random depth."""
    rng = np.random.default_rng(5)
    depth = rng.uniform(2, 8, (2, 40, 50)).astype(np.float32)
    frames = []
    for number in range(2):
        positions = rng.uniform(0, 1, (points // 2, 2))
        units = at_points(depth[number], positions) / scale * np.exp(noise * rng.standard_normal(points // 2))
        lost = rng.uniform(size=points // 2) < wrong
        units[lost] *= rng.uniform(1.5, 10, lost.sum())
        frames.append(FramePoints(number=number, points=SeenPoints(positions=positions, depths=units)))
    return clip_points(frames), depth


def test_clean_points_give_the_scale_itself() -> None:
    found = estimate_scale(*seen(3.7, 400), settings())
    assert isinstance(found, ScaleEstimate)
    assert found.metres_per_unit == pytest.approx(3.7, rel=1e-5)
    assert (found.points, found.inlier_share) == (400, 1.0)
    assert found.spread < 1e-5
    assert found.frame_scales == {"0": pytest.approx(3.7, rel=1e-5), "1": pytest.approx(3.7, rel=1e-5)}


def test_a_fifth_of_wrong_points_moves_noisy_ones_by_little() -> None:
    found = estimate_scale(*seen(3.7, 2000, wrong=0.2, noise=0.1), settings())
    assert isinstance(found, ScaleEstimate)
    assert found.metres_per_unit == pytest.approx(3.7, rel=0.05)
    assert 0.1 < found.spread < 0.2
    assert 0.7 < found.inlier_share < 0.85


def test_spread_is_the_standard_deviation_where_noise_is_normal() -> None:
    found = estimate_scale(*seen(1.0, 4000, noise=0.15), settings())
    assert isinstance(found, ScaleEstimate)
    assert found.spread == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize(
    ("points", "changes", "reason", "message"),
    [
        (seen(1, 400, noise=0.5), {}, Lack.TOO_MUCH_SPREAD, r"spread 0\.\d+ of 400 points .* scale.max_spread is 0.3"),
        (seen(1, 400), {"farthest_metres": 2.1}, Lack.DEPTH_OUT_OF_RANGE, "of 400 points are 0.1 to 2.1 m deep, scale"),
    ],
)
def test_what_is_not_believed(
    points: tuple[ClipPoints, np.ndarray], changes: dict[str, Any], reason: Lack, message: str
) -> None:
    found = estimate_scale(*points, settings(**changes))
    assert isinstance(found, Unscaled)
    assert found.reason is reason
    assert re.search(message, found.message)


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"matches": 20, "without_parallax": 20}, Lack.TOO_FEW_MATCHES),
        ({"matches": 500, "without_parallax": 480, "off_lines": 20}, Lack.TOO_LITTLE_PARALLAX),
        ({"matches": 500, "without_parallax": 20, "off_lines": 400, "behind": 80}, Lack.POSES_OFF_FRAMES),
    ],
)
def test_why_there_are_too_few_points(counts: dict[str, int], reason: Lack) -> None:
    lack = enough_points(clip_points([], **counts), settings())
    assert lack is not None
    assert lack.reason is reason
    assert enough_points(seen(1, 60)[0], settings()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"depth_frames": 0}, {"depth_short_side": 3}, {"min_points": 2}, {"max_spread": 0.0}, {"processes": 0},
        {"nearest_metres": 20.0}, {"min_parallax_degrees": -1.0},
    ],
)  # fmt: skip
def test_settings_out_of_range_are_named(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"scale\.{next(iter(changes))}="):
        settings(**changes).validate()
