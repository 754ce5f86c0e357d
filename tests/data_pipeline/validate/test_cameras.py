"""Motion checks let ordinary camera paths pass."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_pipeline.validate.cameras import check_motion, motion
from data_pipeline.validate.epipolar import SampsonErrors, check_epipolar, pairs_to_compare
from data_pipeline.validate.findings import Check


def path(centres: np.ndarray, turns_degrees: np.ndarray) -> np.ndarray:
    rotation = Rotation.from_rotvec(np.outer(turns_degrees, [0, 1, 0]), degrees=True).as_matrix().transpose(0, 2, 1)
    return np.concatenate([rotation, -rotation @ centres[:, :, None]], axis=2)


def along_x(steps: list[float]) -> np.ndarray:
    centres = np.zeros((len(steps) + 1, 3))
    centres[1:, 0] = np.cumsum(steps)
    return centres


@pytest.mark.parametrize(
    "steps",
    [[0.1] * 9, [0, 0, 0, 0, 0.02, 0.06, 0.1, 0.12, 0.12], [0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0, 0, 0], [0, 0, 1]],
    ids=["steady", "starts late", "comes to rest", "too short to tell"],
)
def test_uneven_motion_is_no_jump(steps: list[float]) -> None:
    assert list(check_motion(path(along_x(steps), np.zeros(len(steps) + 1)))) == []


def test_a_turning_tripod_is_not_still() -> None:
    assert list(check_motion(path(np.zeros((10, 3)), np.linspace(0, 30, 10)))) == []


def test_a_jump_of_the_heading_is_found_at_its_frame() -> None:
    turns = np.array([0, 1, 2, 3, 4, 94, 95, 96, 97, 98.0])
    (seen,) = check_motion(path(along_x([0.1] * 9), turns))
    assert (seen.check, seen.frame) == (Check.JUMPING_CAMERA, 5)


def test_motion_is_measured_between_camera_centres() -> None:
    steps, turns = motion(path(along_x([0.1, 0.3]), np.array([0.0, 10.0, 30.0])))
    np.testing.assert_allclose(steps, [0.1, 0.3], atol=1e-12)
    np.testing.assert_allclose(turns, [10, 20], atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 6, 16, 300])
def test_pairs_lie_within_the_clip(frames: int) -> None:
    pairs = pairs_to_compare(frames)
    assert all(0 <= first < second < frames for first, second in pairs)
    assert bool(pairs) == (frames > 1)


@pytest.mark.parametrize(
    ("given", "inverted", "square", "check"),
    [
        (0.3, 5.0, 0.4, None),
        (0.9, 0.4, 0.9, None),
        (9.0, 0.4, 9.0, Check.POSES_INVERTED),
        (2.5, 9.0, 0.3, Check.INTRINSICS_OFF_FRAMES),
        (9.0, 8.0, 8.5, Check.POSES_OFF_FRAMES),
    ],
)
def test_readings_are_told_apart_only_where_they_differ_clearly(
    given: float, inverted: float, square: float, check: Check | None
) -> None:
    seen = list(check_epipolar(SampsonErrors(matches=100, given=given, inverted=inverted, square=square)))
    assert [each.check for each in seen] == ([] if check is None else [check])
