"""COLMAP models: {cameras,images,points3D}.{bin,txt}, world-to-camera, OpenCV axes, pixels with centres at k + 0.5.

A text model may lack points3D.txt. Frames are the pictures in the natural order of their names.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.transform import Rotation

from cami2v.geometry.pose_files.base import Fault, PosedFrames, PoseFileError, check_rigid, rotation_of

if TYPE_CHECKING:
    import pycolmap


def model_folders(scene: Path) -> list[Path]:
    """List the models of a scene: the folder itself, sparse/ and sparse/<number>/, where they hold one."""
    sparse = scene / "sparse"
    numbered = sorted(path for path in sparse.glob("[0-9]*") if path.is_dir())
    return [folder for folder in (scene, sparse, *numbered) if is_model(folder)]


def is_model(folder: Path) -> bool:
    """Tell whether a folder holds a model."""
    return any((folder / f"images.{kind}").is_file() for kind in ("bin", "txt"))


def open_model(folder: Path) -> pycolmap.Reconstruction:
    """Read a model; raises PoseFileError."""
    # Imported here: most formats do without.
    import pycolmap

    try:
        if any((folder / f"points3D.{kind}").is_file() for kind in ("bin", "txt")):
            return pycolmap.Reconstruction(folder)
        with tempfile.TemporaryDirectory(prefix="cami2v-colmap-") as complete:
            for file in folder.glob("*.txt"):
                Path(complete, file.name).symlink_to(file.resolve())
            Path(complete, "points3D.txt").touch()
            return pycolmap.Reconstruction(complete)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise PoseFileError(Fault.MALFORMED, f"{folder}: not a COLMAP model ({reason:.200})") from error


def read(path: Path) -> PosedFrames:
    """Read the posed pictures of a model, or of the only one below a scene's folder; raises PoseFileError.

    Of cameras with lens distortion, focal lengths and principal point count.
    """
    folders = model_folders(path.parent if path.is_file() else path)
    if len(folders) != 1:
        raise PoseFileError(
            Fault.MALFORMED,
            f"{path}: {len(folders)} COLMAP models ({', '.join(map(str, folders)) or 'none'}); name the folder of one",
        )
    model = open_model(folders[0])
    images = sorted((image for image in model.images.values() if image.has_pose), key=lambda each: natural(each.name))
    if not images:
        raise PoseFileError(Fault.MALFORMED, f"{folders[0]}: no picture of the model has a pose")
    poses = np.stack([image.cam_from_world().matrix() for image in images]).astype(np.float64)
    check_rigid(poses, folders[0])
    camera = images[0].camera
    assert camera is not None, "an image of a model has one"
    return PosedFrames(
        world_to_camera=poses,
        intrinsics_normalized=np.stack([normalized_intrinsics(image) for image in images]),
        names=tuple(image.name for image in images),
        size=(camera.height, camera.width),
    )


def normalized_intrinsics(image: pycolmap.Image) -> np.ndarray:
    """Return fx fy cx cy of a picture's camera, divided by its width and height."""
    camera = image.camera
    assert camera is not None, "an image of a model has one"
    x, y, width, height = camera.principal_point_x, camera.principal_point_y, camera.width, camera.height
    return np.array([camera.focal_length_x / width, camera.focal_length_y / height, x / width, y / height])


def write(folder: Path, frames: PosedFrames) -> None:
    """Write a text model of cameras that have intrinsics and a size: one COLMAP camera where all are equal."""
    intrinsics, size = frames.intrinsics_normalized, frames.size
    assert intrinsics is not None
    assert size is not None
    height, width = size
    pixels = intrinsics * np.array([width, height, width, height])
    shared = bool((pixels == pixels[0]).all())
    quaternions = Rotation.from_matrix(rotation_of(frames.world_to_camera, "COLMAP")).as_quat(scalar_first=True)
    names = frames.names or tuple(f"{number:06d}.png" for number in range(len(pixels)))
    cameras = ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, fx, fy, cx, cy"]
    images = ["# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME, and an empty line: no points"]
    for number, row in enumerate(pixels[:1] if shared else pixels, 1):
        cameras.append(" ".join([str(number), "PINHOLE", str(width), str(height), *map(repr, row.tolist())]))
    for number, (quaternion, pose, name) in enumerate(zip(quaternions, frames.world_to_camera, names, strict=True), 1):
        numbers = map(repr, [*quaternion.tolist(), *pose[:, 3].tolist()])
        images += [" ".join([str(number), *numbers, "1" if shared else str(number), name]), ""]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", ["# none"])):
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def natural(name: str) -> list[Any]:
    """Sort frame_9 before frame_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
