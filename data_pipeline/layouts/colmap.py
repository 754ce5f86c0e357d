"""Read COLMAP models, one per clip: [<scene>/]sparse/[0/]{cameras,images,points3D}.{bin,txt} and [<scene>/]images/.

COLMAP gives world-to-camera poses in OpenCV axes, intrinsics in pixels with the first pixel's centre at 0.5, no unit
and no times: frames are the pictures in the natural order of their names, at the given rate.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.pose_files.colmap import model_folders, natural, normalized_intrinsics, open_model
from data_pipeline.bad_clips import BadClip, Reason, pose_file_faults
from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.frames import ImageFiles, file_size
from data_pipeline.layouts.scenes import scene_folders, scene_id
from data_pipeline.layouts.side_files import read_side_files
from data_pipeline.realestate10k.track import PoseTrack, check_track

if TYPE_CHECKING:
    import pycolmap

_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def recognise(folder: Path) -> bool:
    """Return whether the folder or one of its subfolders holds a sparse model."""
    return bool(scene_folders(folder, _is_scene))


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the scenes; raises ValueError where no frame rate was given, for a model does not say it."""
    if settings.frames_per_second is None:
        raise ValueError(
            f"source={folder}: COLMAP models say nothing about time; set pack.reading.frames_per_second to the rate "
            "at which the pictures were taken"
        )
    beside = read_side_files(folder)
    return tuple(
        SceneClip(
            clip_id=scene_id(scene),
            split=None,
            address=scene_id(scene),
            captions=beside.captions.get(scene_id(scene), ()),
            metric_scale=beside.metric_scales.get(scene_id(scene)),
            scene=scene,
            model_files=tuple(path for each in _model_folders(scene) for path in sorted(each.glob("*.*"))),
            source_id=beside.sources.get(scene_id(scene), scene_id(scene)),
            frames_per_second=settings.frames_per_second,
        )
        for scene in scene_folders(folder, _is_scene)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneClip(PosedClip):
    """A folder with a model and its pictures."""

    scene: Path
    model_files: tuple[Path, ...]
    source_id: str
    frames_per_second: float

    @property
    def where(self) -> str:
        """The model's folder."""
        return str(_model_folders(self.scene)[0])

    @property
    def matched_by_time(self) -> bool:
        """False: a camera per picture."""
        return False

    def track(self) -> PoseTrack:
        """Read the model; raises BadClip where it does not cover all pictures or has lens distortion."""
        model = _read_model(self.scene)
        posed = {image.name: image for image in model.images.values() if image.has_pose}
        names = self._picture_names()
        missing = [name for name in names if name not in posed]
        if missing or len(posed) != len(names):
            raise BadClip(
                Reason.FRAME_COUNT_MISMATCH,
                f"{self.where}: {len(posed)} posed images for {len(names)} pictures in {self.scene / 'images'}"
                f"{f', {missing[0]} has none' if missing else ''}; remove the pictures without a pose or cut the clip",
            )
        poses = np.stack([posed[name].cam_from_world().matrix() for name in names])
        track = PoseTrack(
            address=self.address,
            source_id=self.source_id,
            caption=None,
            video_path=None,
            timestamps_microseconds=np.rint(np.arange(len(names)) * 1e6 / self.frames_per_second).astype(np.int64),
            intrinsics_normalized=np.stack([self._intrinsics(posed[name], name) for name in names]),
            world_to_camera=np.ascontiguousarray(poses, np.float64),
        )
        check_track(track, lambda frame: f"{self.where} image {names[frame]}")
        return track

    def frame_source(self, track: PoseTrack) -> ImageFiles:
        """Return the pictures in the order of the cameras."""
        times = tuple((track.timestamps_microseconds / 1e6).tolist())
        return ImageFiles(
            paths=tuple(self.scene / "images" / name for name in self._picture_names()), times_seconds=times
        )

    def _picture_names(self) -> list[str]:
        pictures = self.scene / "images"
        names = [path.relative_to(pictures).as_posix() for path in pictures.rglob("*")]
        return sorted((name for name in names if name.lower().endswith(_PICTURES)), key=natural)

    def _intrinsics(self, image: pycolmap.Image, name: str) -> Float64[np.ndarray, " 4"]:
        camera = image.camera
        assert camera is not None, "an image of a model has one"
        if not camera.is_undistorted():
            raise BadClip(
                Reason.INTRINSICS_IMPLAUSIBLE,
                f"{self.where}: camera {camera.camera_id} is {camera.model_name} with distortion; frames must be free "
                "of it, run `colmap image_undistorter` first",
            )
        try:
            size = file_size(self.scene / "images" / name)
        except ValueError as error:
            raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error
        if size != (camera.width, camera.height):
            raise BadClip(
                Reason.INTRINSICS_IMPLAUSIBLE,
                f"{self.scene / 'images' / name}: {size[0]}x{size[1]}, but its camera is for "
                f"{camera.width}x{camera.height}; give the pictures that the model was made of",
            )
        return normalized_intrinsics(image)


def _is_scene(folder: Path) -> bool:
    return bool(_model_folders(folder))


def _model_folders(scene: Path) -> list[Path]:
    """A scene's models lie below sparse/: a model without pictures is no scene."""
    return [folder for folder in model_folders(scene) if folder != scene]


@functools.lru_cache(maxsize=1)  # validation asks for a clip's cameras twice
def _read_model(scene: Path) -> pycolmap.Reconstruction:
    folders = _model_folders(scene)
    if len(folders) > 1:
        raise BadClip(
            Reason.POSE_FILE_MALFORMED,
            f"{scene / 'sparse'}: {len(folders)} models ({', '.join(each.name for each in folders)}), each in its own "
            "world; keep the one to pack",
        )
    with pose_file_faults():
        return open_model(folders[0])
