"""Which of the two solutions of narrow views is taken? A reconstruction of exact points, made without any image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from scipy.spatial.transform import Rotation

from cami2v.evaluation.camera_metrics import camera_errors
from cami2v.evaluation.pose_estimation.reversed_depth import better_of_both, reverse_depth
from cami2v.evaluation.pose_estimation.solution_quality import registered_path
from cami2v.evaluation.pose_estimation.two_view_matches import epipolar_cost, read_matches

FRAMES, BOUND = 6, 4.0
INTRINSICS = np.tile([300.0, 280.0, 128.0, 96.0], (FRAMES, 1))
POINTS = np.random.default_rng(0).uniform([-1.2, -0.9, 4.0], [1.2, 0.9, 6.0], (150, 3))


def orbit() -> np.ndarray:
    """World-to-camera poses that turn about a point five units ahead."""
    center, poses = np.array([0.0, 0.0, 5.0]), []
    for frame in range(FRAMES):
        rotation = Rotation.from_euler("yx", [3.0 * frame, 1.0 * frame], degrees=True).as_matrix()
        poses.append(np.column_stack([rotation, center - rotation @ center]))
    return np.stack(poses)


def observed(path: np.ndarray) -> np.ndarray:
    seen = np.einsum("tij,pj->tpi", path[:, :, :3], POINTS) + path[:, None, :, 3]
    noise = np.random.default_rng(1).normal(0, 0.3, (FRAMES, len(POINTS), 2))
    return seen[..., :2] / seen[..., 2:] * INTRINSICS[0, :2] + INTRINSICS[0, 2:] + noise


def reconstruct(path: np.ndarray) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model="PINHOLE", width=256, height=192, params=INTRINSICS[0], camera_id=1)
    model.add_camera_with_trivial_rig(camera)
    for frame, points in enumerate(observed(path)):
        image = pycolmap.Image(name=f"{frame:06d}.png", keypoints=points, camera_id=1, image_id=frame + 1)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(path[frame, :, :3]), path[frame, :, 3])
        model.add_image_with_trivial_frame(image, pose)
    for number, point in enumerate(POINTS):
        track = pycolmap.Track()
        for frame in range(FRAMES):
            track.add_element(frame + 1, number)
        model.add_point3D(point, track)
    return model


def store(path: np.ndarray, database: Path) -> None:
    """Write the verified matches that such a reconstruction is made from."""
    every = np.stack([np.arange(len(POINTS))] * 2, axis=1).astype(np.uint32)
    with pycolmap.Database.open(database) as opened:
        camera = pycolmap.Camera(model="PINHOLE", width=256, height=192, params=INTRINSICS[0])
        number = opened.write_camera(camera)
        rig = pycolmap.Rig(rig_id=1)
        rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number))
        opened.write_rig(rig, use_rig_id=True)
        for frame, points in enumerate(observed(path)):
            image = pycolmap.Image(name=f"{frame:06d}.png", camera_id=number, image_id=frame + 1)
            opened.write_image(image, use_image_id=True)
            stored = pycolmap.Frame(frame_id=frame + 1, rig_id=1)
            stored.add_data_id(pycolmap.data_t(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number), frame + 1))
            opened.write_frame(stored, use_frame_id=True)
            opened.write_keypoints(frame + 1, points.astype(np.float32))
        for first in range(FRAMES):
            for second in range(first + 1, FRAMES):
                opened.write_matches(first + 1, second + 1, every)
                geometry = pycolmap.TwoViewGeometry()
                geometry.config, geometry.inlier_matches = pycolmap.TwoViewGeometryConfiguration.CALIBRATED, every
                opened.write_two_view_geometry(first + 1, second + 1, geometry)


def path_of(model: pycolmap.Reconstruction) -> np.ndarray:
    path = registered_path(model, FRAMES)
    assert isinstance(path, np.ndarray)
    return path


def rotation_error(model: pycolmap.Reconstruction) -> float:
    errors = camera_errors(torch.from_numpy(orbit()), torch.from_numpy(path_of(model)))
    return float(errors.figures()["RotErr_mean_deg"])


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reversed") / "matches.db"
    store(orbit(), path)
    return path


def test_the_counterpart_turns_the_other_way_and_back() -> None:
    model = reconstruct(orbit())
    counterpart = reverse_depth(model)
    # From one end to the other the orbit turns by 15.8 degrees; reversed, by as much the other way.
    assert rotation_error(counterpart) > 15
    assert rotation_error(reverse_depth(counterpart)) < 1e-4
    assert rotation_error(model) < 1e-4, "the given model must not change"


def test_the_counterpart_fits_nearly_as_well(database: Path) -> None:
    """Else there would be nothing to tell apart."""
    matches = read_matches(database)
    costs = [
        epipolar_cost(matches, path_of(model), INTRINSICS, max_error_pixels=BOUND)
        for model in (reconstruct(orbit()), reverse_depth(reconstruct(orbit())))
    ]
    assert costs[0] < 0.2
    assert costs[0] < costs[1] < 4.0


def test_the_better_of_both_is_taken(database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pycolmap.logging.minloglevel = 3
    matches = read_matches(database)

    def choose(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
        return better_of_both(model, matches, INTRINSICS, database=database, images=tmp_path, max_error_pixels=BOUND)

    good = reconstruct(orbit())
    assert choose(good) is good
    rescued = choose(reverse_depth(good))
    assert rotation_error(rescued) < 0.2
    assert rescued.num_points3D() > 100
    assert capfd.readouterr() == ("", ""), "COLMAP must stay silent"
