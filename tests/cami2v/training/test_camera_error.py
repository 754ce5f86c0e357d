"""The camera error of validation samples: a path that is found, and one that is not."""

import json
from pathlib import Path

import numpy as np
import pytest

from cami2v.evaluation.pose_estimation.base import EstimatedPath, PoseEstimate, PoseEstimator, SolutionQuality
from cami2v.evaluation.pose_estimation.mappers import GlobalMapper
from cami2v.training.callbacks.camera_error import CameraErrors
from cami2v.training.callbacks.judge import CameraErrorSettings
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.callbacks.validate import Validate
from launch.compose import compose_config, instantiate_part
from tests.cami2v.training.toys import LOGGING, toy_clip, train

pytestmark = pytest.mark.usefixtures("one_process")


class Forward(PoseEstimator):
    """Finds the path that every toy clip has."""

    def estimate(self, frames: np.ndarray, intrinsics_pixels: np.ndarray, seed: int) -> PoseEstimate:
        path = np.repeat(np.eye(4)[None, :3], len(frames), axis=0)
        path[:, 2, 3] = np.arange(len(frames))
        quality = SolutionQuality(
            points=9, reprojection_error_pixels=0.1, epipolar_outlier_share=0.0, behind_camera_share=0.0,
            extent_to_depth=1.0,
        )  # fmt: skip
        return EstimatedPath(world_to_camera=path, quality=quality)

    def describe(self) -> dict[str, str | int | float]:
        return {"estimator": "forward"}


def validated(folder: Path, estimator: PoseEstimator, every_validations: int = 1, steps: int = 2) -> list[dict]:
    settings = CameraErrorSettings(every_validations=every_validations, trials=1, processes=1, estimator=estimator)
    errors = CameraErrors(settings=settings, estimator=estimator, validate_every_steps=1)
    log = MetricsLog(every_steps=1, settings=LOGGING, config={})
    clips = [toy_clip(100), toy_clip(101)]
    validate = Validate(clips=clips, sampler="any", every_steps=1, log=log, judge=errors)
    train(folder, "single", callbacks=(validate,), max_steps=steps)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "validation_loss" in row]


def test_a_path_that_is_found_has_its_error_next_to_that_of_the_true_videos(tmp_path: Path) -> None:
    rows = validated(tmp_path, Forward(), every_validations=2)
    assert ["camera_error/clips" in row for row in rows] == [False, True], "every second one"
    for row in rows[1:]:
        assert row["camera_error/clips"] == 2
        assert row["camera_error/failed_clips"] == row["camera_floor/failed_clips"] == 0
        assert row["camera_error/RotErr_mean_deg"] == pytest.approx(0, abs=1e-3)
        assert row["camera_floor/TransErr_mean"] == pytest.approx(0, abs=1e-3)
    floor = sorted((tmp_path / "samples" / "true_videos" / "measurements" / "poses" / "ground_truth").iterdir())
    assert len(floor) == 2
    assert len(list((tmp_path / "samples/step-00000002/camera/measurements/poses/generated").iterdir())) == 2


def test_failures_are_counted_as_a_motionless_camera(tmp_path: Path) -> None:
    estimator: GlobalMapper = instantiate_part(
        compose_config("train", ["camera_error=default"]).camera_error.estimator, "camera_error.estimator"
    )
    (row,) = validated(tmp_path, estimator, steps=1)
    assert row["camera_error/failed_clips"] == row["camera_floor/failed_clips"] == 2
    stored = json.loads(next((tmp_path / "samples/true_videos/measurements/poses/ground_truth").iterdir()).read_text())
    assert row["camera_floor/CamMC_mean"] == pytest.approx(stored["stationary"]["CamMC_mean"])
    assert row["camera_error/CamMC_mean"] > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((-1, 1, None), "camera_error.every_validations: got -1"),
        ((1, 0, None), "camera_error.trials: got 0"),
        ((1, 1, None), "camera_error.estimator: got null"),
    ],
)
def test_wrong_settings_name_their_key(values: tuple, message: str) -> None:
    every, trials, estimator = values
    with pytest.raises(ValueError, match=message):
        CameraErrorSettings(every_validations=every, trials=trials, processes=1, estimator=estimator)
