"""Real structure from motion on rendered and on real clips, and on videos without geometry."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cami2v.evaluation.camera_metrics import camera_errors, relative_to_first, translation_extent
from cami2v.evaluation.pose_estimation.base import EstimatedPath, FailedEstimate, FailureReason, SolutionQuality
from cami2v.evaluation.pose_estimation.mappers import GlobalMapper
from cami2v.geometry.metric_scale import depth_ratios, metric_scale
from tests.cami2v.evaluation.clips import REPOSITORY, PosedFrames, configured_estimator, real_clip, synthetic_clip


def errors(clip: PosedFrames, estimate: object) -> dict[str, float]:
    assert isinstance(estimate, EstimatedPath), estimate
    truth, found = (torch.from_numpy(path) for path in (clip.world_to_camera, estimate.world_to_camera))
    return {name: float(value) for name, value in camera_errors(truth, found).figures().items()}


def found_metres(clip: PosedFrames, estimate: EstimatedPath) -> float:
    """Return the length of the estimated path, brought to metres by true depth, over that of the true one."""
    assert clip.first_depth is not None
    assert estimate.first_frame_points is not None
    ratios = depth_ratios(clip.first_depth, estimate.first_frame_points, nearest_metres=0.0, farthest_metres=np.inf)
    extents = [
        float(translation_extent(relative_to_first(torch.from_numpy(path))))
        for path in (estimate.world_to_camera, clip.world_to_camera)
    ]
    return metric_scale(ratios).metres_per_unit * extents[0] / extents[1]


@pytest.mark.slow
def test_recovers_the_path_of_a_synthetic_clip(capfd: pytest.CaptureFixture[str]) -> None:
    clip = synthetic_clip(kind="orbit", frames=8, width=320, height=180)
    first, second, again = configured_estimator().estimate_trials(clip.frames, clip.intrinsics_pixels, (0, 1, 0))
    for estimate in (first, second):
        found = errors(clip, estimate)
        assert found["RotErr_mean_deg"] < 0.5
        assert found["TransErr_mean"] < 0.02
    assert isinstance(first, EstimatedPath)
    assert isinstance(second, EstimatedPath)
    assert isinstance(again, EstimatedPath)
    np.testing.assert_array_equal(first.world_to_camera, again.world_to_camera)
    assert not np.array_equal(first.world_to_camera, second.world_to_camera), "trials must differ by their seed"
    assert found_metres(clip, first) == pytest.approx(1.0, abs=0.005)
    assert capfd.readouterr() == ("", ""), "COLMAP must stay silent"


@pytest.mark.parametrize("content", ["noise", "black", "frozen"])
def test_videos_without_geometry_fail_with_a_reason(content: str, capfd: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0).integers(0, 256, (5, 96, 128, 3), dtype=np.uint8)
    frames = {"noise": random, "black": np.zeros_like(random), "frozen": np.repeat(random[:1], 5, axis=0)}[content]
    intrinsics = np.tile([100.0, 100.0, 64.0, 48.0], (5, 1))
    estimate = configured_estimator().estimate(frames, intrinsics, seed=0)
    assert isinstance(estimate, FailedEstimate)
    assert estimate.reason is FailureReason.NO_MODEL
    assert "verified matches" in estimate.detail
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [(16, 24), (31, 200)])
def test_frames_too_small_for_features_fail_with_a_reason(size: tuple[int, int]) -> None:
    frames = np.zeros((2, *size, 3), np.uint8)
    first, second = configured_estimator().estimate_trials(frames, np.tile([20.0, 20.0, 12.0, 8.0], (2, 1)), (0, 1))
    assert first == second
    assert isinstance(first, FailedEstimate)
    assert first.reason is FailureReason.TOO_SMALL
    assert f"{size[0]}x{size[1]} pixels" in first.detail


@pytest.mark.parametrize("key", ["attempts", "enlarge_partial"])
def test_rescues_of_less_than_one_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match=f"evaluation.estimator.{key}=0: must be at least 1"):
        configured_estimator(f"evaluation.estimator.{key}=0")


class RegistersEnlargedFrames(GlobalMapper):
    """Reconstructs nothing itself; says which frames it was shown."""

    def _attempt(self, clip: Any, seed: int) -> tuple[Any, list[Any]]:
        with Image.open(next(clip.images.iterdir())) as image:
            size = image.size
        if size == (64, 48):
            return FailedEstimate(reason=FailureReason.UNREGISTERED_FRAME, detail="2 of 5"), []
        path = np.tile(np.eye(4)[:3], (5, 1, 1))
        path[:, 0, 3] = clip.intrinsics_pixels[0] @ [1, 0, 1, 0]
        quality = SolutionQuality(
            points=9,
            reprojection_error_pixels=0.5,
            epipolar_outlier_share=0.0,
            behind_camera_share=0.0,
            extent_to_depth=1.0,
        )
        return EstimatedPath(world_to_camera=path, quality=quality), []


def test_a_partly_registered_clip_is_tried_again_enlarged() -> None:
    settings = dict(vars(configured_estimator()))
    frames, intrinsics = np.zeros((5, 48, 64, 3), np.uint8), np.tile([60.0, 50.0, 32.0, 24.0], (5, 1))
    (estimate,) = RegistersEnlargedFrames(**{**settings, "enlarge_partial": 2}).estimate_trials(
        frames, intrinsics, (0,)
    )
    assert isinstance(estimate, EstimatedPath)
    assert isinstance(estimate.quality, SolutionQuality)
    assert estimate.quality.rescued_by == "enlarged frames"
    assert estimate.world_to_camera[0, 0, 3] == 2 * (60 + 32), "the intrinsics must belong to the enlarged frames"
    (failed,) = RegistersEnlargedFrames(**settings).estimate_trials(frames, intrinsics, (0,))
    assert isinstance(failed, FailedEstimate)


def test_the_incremental_mapper_is_a_choice() -> None:
    estimator = configured_estimator("evaluation/estimator=incremental_mapper")
    assert estimator.describe()["estimator"] == "IncrementalMapper"
    assert estimator.describe().keys() == configured_estimator().describe().keys()


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize("number", [0, 5])
def test_recovers_the_path_of_a_real_clip(number: int) -> None:
    clip = real_clip(number)
    found = errors(clip, configured_estimator().estimate(clip.frames, clip.intrinsics_pixels, seed=0))
    # docs/evaluate.md: these clips have RotErr 0.02 and 0.04, summed over 16 frames in radians.
    assert found["RotErr_sum_rad"] < 0.15
    assert found["TransErr_sum"] < 0.4


@pytest.mark.parametrize("module", ["pose_estimation.mappers", "measures.epipolar"])
def test_importing_what_uses_pycolmap_leaves_sigterm_alone(module: str) -> None:
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('heard'), os._exit(7)))\n"
        f"import cami2v.evaluation.{module}\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 7, ended.stderr
    assert ended.stderr == ""
