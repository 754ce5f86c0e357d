"""Every format of pose files: what is written is read again, and faults are named."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cami2v.geometry.pose_files import tum
from cami2v.geometry.pose_files.base import Fault, PosedFrames, PoseFileError, camera_to_world
from cami2v.geometry.pose_files.formats import FORMATS, WRITTEN, format_for, format_of

PLACES = {"colmap": "model", "transforms": "transforms.json", "motionctrl": "path.json", "tum": "path.tum"}
LINE = "158692025 0.47 0.84 0.5 0.5 0 0 1 0 0 0.1 0 1 0 0.2 0 0 1 0.3"


def cameras(frames: int = 12, seed: int = 0) -> PosedFrames:
    """More than nine, so that names sorted as text would be in another order."""
    random = np.random.default_rng(seed)
    rotations = Rotation.random(frames, random_state=seed).as_matrix()
    focal = random.uniform(0.5, 1.5, (frames, 1))
    return PosedFrames(
        world_to_camera=np.concatenate([rotations, random.normal(size=(frames, 3, 1))], axis=2),
        intrinsics_normalized=np.concatenate([focal, focal * 16 / 9, np.full((frames, 2), 0.5)], axis=1),
        times_seconds=np.arange(frames) / 8,
        names=tuple(f"frame_{number}.png" for number in range(frames)),
        size=(360, 640),
    )


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    path, wanted = tmp_path / PLACES.get(name, "path.txt"), cameras()
    FORMATS[name].write(path, wanted)
    assert format_of(path) == name.replace("cameractrl", "realestate10k")
    assert format_for(path) == format_of(path)
    read = FORMATS[name].read(path)
    np.testing.assert_allclose(read.world_to_camera, wanted.world_to_camera, atol=1e-14)
    assert (read.intrinsics_normalized is not None) == FORMATS[name].intrinsics
    if read.intrinsics_normalized is not None and wanted.intrinsics_normalized is not None:
        np.testing.assert_allclose(read.intrinsics_normalized, wanted.intrinsics_normalized, atol=1e-14)
    if read.times_seconds is not None and wanted.times_seconds is not None:
        np.testing.assert_allclose(read.times_seconds, wanted.times_seconds, atol=1e-12)


def test_colmap_has_one_camera_where_all_are_equal_and_may_lack_points(tmp_path: Path) -> None:
    wanted = cameras()
    assert wanted.intrinsics_normalized is not None
    same = replace(wanted, intrinsics_normalized=np.tile(wanted.intrinsics_normalized[0], (12, 1)))
    FORMATS["colmap"].write(tmp_path / "sparse" / "0", same)
    assert len((tmp_path / "sparse/0/cameras.txt").read_text().splitlines()) == 2
    (tmp_path / "sparse/0/points3D.txt").unlink()
    read = FORMATS["colmap"].read(tmp_path)
    assert read.names == same.names
    assert read.intrinsics_normalized is not None
    np.testing.assert_allclose(read.intrinsics_normalized[-1], wanted.intrinsics_normalized[0], atol=1e-14)


def test_axes_of_opengl(tmp_path: Path) -> None:
    """A camera that stands at (1, 2, 3) and looks along its own -z, which is the world's -z."""
    matrix = [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    content = {"camera_angle_x": np.pi / 2, "frames": [{"file_path": "./train/r_0", "transform_matrix": matrix}]}
    (tmp_path / "transforms_train.json").write_text(json.dumps(content))
    (tmp_path / "gl.tum").write_text("# comment\n0.5 1 2 3 0 0 0 1\n")
    read = FORMATS["transforms"].read(tmp_path / "transforms_train.json")
    assert read.intrinsics_normalized is not None
    np.testing.assert_allclose(read.intrinsics_normalized, [[0.5, 0.5, 0.5, 0.5]])
    for poses in (read, FORMATS["tum_opengl"].read(tmp_path / "gl.tum")):
        pose = camera_to_world(poses.world_to_camera)[0]
        np.testing.assert_allclose(pose[:3, 3], [1, 2, 3])
        np.testing.assert_allclose(pose[:3, 2], [0, 0, -1], err_msg="looks along -z")
        np.testing.assert_allclose(pose[:3, 1], [0, -1, 0], err_msg="y is down")


def test_pixels_and_angles_of_transforms(tmp_path: Path) -> None:
    frame = {"transform_matrix": np.eye(4).tolist()}
    shared = {"w": 640, "h": 480, "fl_x": 320.0, "cy": 120.0}
    (tmp_path / "transforms.json").write_text(json.dumps({**shared, "frames": [frame, {**frame, "fl_x": 640.0}]}))
    read = FORMATS["transforms"].read(tmp_path)
    assert read.size == (480, 640)
    assert read.intrinsics_normalized is not None
    np.testing.assert_allclose(read.intrinsics_normalized, [[0.5, 0.5 * 4 / 3, 0.5, 0.25], [1, 4 / 3, 0.5, 0.25]])


def test_intrinsics_beside_a_tum_trajectory(tmp_path: Path) -> None:
    tum.write(tmp_path / "groundtruth.txt", cameras())
    (tmp_path / "intrinsics.txt").write_text("320 480 320 180 640 360\n")
    assert format_of(tmp_path / "groundtruth.txt") == "tum"
    read = tum.read(tmp_path / "groundtruth.txt")
    assert read.intrinsics_normalized is not None
    np.testing.assert_allclose(read.intrinsics_normalized[-1], [0.5, 480 / 360, 0.5, 0.5])
    assert read.size == (360, 640)


@pytest.mark.parametrize("name", ["realestate10k", "motionctrl", "transforms"])
def test_mirrored_paths_pass_where_a_format_can_hold_them(name: str, tmp_path: Path) -> None:
    wanted = cameras()
    mirrored = replace(wanted, world_to_camera=wanted.world_to_camera @ np.diag([1.0, 1.0, -1.0, 1.0]))
    path = tmp_path / PLACES.get(name, "path.txt")
    FORMATS[name].write(path, mirrored)
    np.testing.assert_allclose(FORMATS[name].read(path).world_to_camera, mirrored.world_to_camera, atol=1e-14)
    for quaternions in ("tum", "colmap"):
        with pytest.raises(PoseFileError, match=r"determinant -1.*relative to one of its frames"):
            FORMATS[quaternions].write(tmp_path / "other", mirrored)
    mirrored.world_to_camera[3] = wanted.world_to_camera[3]
    FORMATS[name].write(path, mirrored)
    with pytest.raises(PoseFileError, match="is mirrored .* and others are not"):
        FORMATS[name].read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "a.txt: empty"),
        ("a.txt", f"url\n{LINE}\n{LINE} 4\n", "a.txt line 3: 20 fields, expected 19"),
        ("a.txt", f"{LINE}\n{LINE.replace('0.3', 'x')}\n", "a.txt line 2: could not convert"),
        ("a.txt", f"url\n{LINE.replace(' 1 ', ' 2 ')}\n", "a.txt: 1 of 1 poses, the first at frame 0"),
        ("a.json", "[[1, 2]]", "each a list of 12 numbers"),
        ("a.json", "[]", "each a list of 12 numbers"),
        ("a.json", "[", "is not JSON"),
        ("a.json", '{"frames": []}', "expected .*transform_matrix"),
        ("a.json", '{"frames": [{"transform_matrix": [[1]]}]}', "frame 0: transform_matrix has shape"),
        ("a.json", '{"frames": [{"transform_matrix": "x"}]}', "frame 0: transform_matrix is not"),
        ("a.tum", "0 0 0 0 0 0 0 2\n", "quaternion of pose 0 has length 2, not 1"),
        ("a.tum", "0 0 0 0 0 0 1\n", "a.tum line 1: expected 8 finite numbers"),
        ("a.tum", "0 0 0 nan 0 0 0 1\n", "a.tum line 1: expected 8 finite numbers"),
    ],
)
def test_faults_are_named_in_one_line(name: str, content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(PoseFileError, match=message) as raised:
        FORMATS[str(format_of(path))].read(path)
    assert "\n" not in str(raised.value)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (again.fault, str(again)) == (raised.value.fault, str(raised.value))


def test_faults_of_colmap_models(tmp_path: Path) -> None:
    for folder in ("sparse/0", "sparse/1"):
        FORMATS["colmap"].write(tmp_path / folder, cameras())
    with pytest.raises(PoseFileError, match="2 COLMAP models .*sparse/0.*name the folder of one"):
        FORMATS["colmap"].read(tmp_path)
    (tmp_path / "sparse/0/images.txt").write_text("1 1 0 0 x 0 0 0 1 a.png\n\n")
    with pytest.raises(PoseFileError, match="sparse/0: not a COLMAP model") as raised:
        FORMATS["colmap"].read(tmp_path / "sparse" / "0")
    assert raised.value.fault is Fault.MALFORMED


def test_what_is_no_pose_file_has_no_format(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"mix": ["zoom_in"], "frames": 16}')
    (tmp_path / "clip.mp4").write_bytes(b"")
    assert [format_of(tmp_path / name) for name in ("spec.json", "clip.mp4", "absent.txt", ".")] == [None] * 4


def test_readers_import_no_torch() -> None:
    code = "import sys, cami2v.geometry.pose_files.formats; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
