"""Read trajectories in TUM's format, one per clip: [<scene>/]groundtruth.txt or trajectory.txt, and frames.

A line is `timestamp tx ty tz qx qy qz qw`: seconds, camera-to-world. Frames are rgb.txt (`timestamp file` per line) and
its pictures, or video.mp4 whose frame times are on the trajectory's clock. intrinsics.txt is ours, for the format has
none: `fx fy cx cy width height` in pixels. Which way the camera's axes point must be said: TUM's own data sets are
opencv. Each frame takes the pose nearest in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from cami2v.geometry.pose_files.tum import (
    INTRINSICS_FILE,
    CameraAxes,
    numbered_lines,
    pose_rows,
    read_intrinsics,
    world_to_camera,
)
from data_pipeline.bad_clips import BadClip, Reason, pose_file_faults
from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.frames import FrameSource, ImageFiles
from data_pipeline.layouts.scenes import scene_folders, scene_id
from data_pipeline.layouts.side_files import read_side_files
from data_pipeline.layouts.video_clip import named_video
from data_pipeline.realestate10k.layout import VIDEO_SUFFIXES
from data_pipeline.realestate10k.track import PoseTrack, check_track

_TRAJECTORIES = ("groundtruth.txt", "trajectory.txt")
_FARTHEST_SECONDS = 0.02
"""Between a frame and its pose: what TUM's own association tool allows."""


def recognise(folder: Path) -> bool:
    """Return whether the folder or one of its subfolders holds a trajectory."""
    return bool(scene_folders(folder, _is_scene))


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the scenes; raises ValueError where the camera's axes were not given, for the format does not fix them."""
    if settings.camera_axes is None:
        raise ValueError(
            f"source={folder}: TUM trajectories do not say where the camera's axes point; set pack.reading.camera_axes "
            "to opencv (z forward, y down: TUM's own data sets, most SLAM systems) or opengl (z backward, y up)"
        )
    beside = read_side_files(folder)
    return tuple(
        TrajectoryClip(
            clip_id=scene_id(scene),
            split=None,
            address=scene_id(scene),
            captions=beside.captions.get(scene_id(scene), ()),
            metric_scale=beside.metric_scales.get(scene_id(scene)),
            scene=scene,
            text_files=(_trajectory(scene), scene / "intrinsics.txt", scene / "rgb.txt"),
            source_id=beside.sources.get(scene_id(scene), scene_id(scene)),
            camera_axes=settings.camera_axes,
        )
        for scene in scene_folders(folder, _is_scene)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrajectoryClip(PosedClip):
    """A folder with a trajectory, intrinsics and frames."""

    scene: Path
    text_files: tuple[Path, ...]
    source_id: str
    camera_axes: CameraAxes

    @property
    def where(self) -> str:
        """The trajectory."""
        return str(_trajectory(self.scene))

    @property
    def matched_by_time(self) -> bool:
        """True: poses have times of their own."""
        return True

    def track(self) -> PoseTrack:
        """Give each frame its nearest pose, leaving out frames before the first and after the last; raises BadClip."""
        with pose_file_faults():
            rows = pose_rows(_trajectory(self.scene))
        times, start = self._frame_times()
        # The clock of the frame source starts at its first frame.
        pose_times = rows[:, 0] - start
        chosen = _nearest_poses(pose_times, times, self.where)
        with pose_file_faults():
            normalized, _ = read_intrinsics(self.scene / INTRINSICS_FILE)
            poses = world_to_camera(rows[chosen, 1:], self.camera_axes, self.where)
        track = PoseTrack(
            address=self.address,
            source_id=self.source_id,
            caption=None,
            video_path=None,
            timestamps_microseconds=np.rint(pose_times[chosen] * 1e6).astype(np.int64),
            intrinsics_normalized=np.tile(normalized, (len(chosen), 1)),
            world_to_camera=poses,
        )
        check_track(track, lambda frame: f"{self.where} pose {chosen[frame]}")
        return track

    def frame_source(self, track: PoseTrack) -> FrameSource:
        """Return the pictures of rgb.txt, or the video."""
        return self._frames()

    def _frames(self) -> FrameSource:
        if not (self.scene / "rgb.txt").is_file():
            return named_video([self.scene / f"video{suffix}" for suffix in VIDEO_SUFFIXES], self.where)
        listed = _listed_pictures(self.scene / "rgb.txt")
        return ImageFiles(
            paths=tuple(self.scene / name for _, name in listed),
            times_seconds=tuple(time - listed[0][0] for time, _ in listed),
        )

    def _frame_times(self) -> tuple[Float64[np.ndarray, " frames"], float]:
        """Return the frames' times, and the trajectory's time at which that clock is 0."""
        if (self.scene / "rgb.txt").is_file():
            listed = [time for time, _ in _listed_pictures(self.scene / "rgb.txt")]
            return np.array(listed) - listed[0], listed[0]
        try:
            return self._frames().info().timestamps_seconds, 0.0
        except BadClip:
            raise
        except ValueError as error:
            raise BadClip(Reason.VIDEO_UNREADABLE, str(error)) from error


def _nearest_poses(
    pose_times: Float64[np.ndarray, " poses"], frame_times: Float64[np.ndarray, " frames"], where: str
) -> list[int]:
    if np.any(np.diff(pose_times) <= 0):
        raise BadClip(Reason.TIMESTAMPS_NOT_INCREASING, f"{where}: the times of its poses do not increase")
    step = float(np.median(np.diff(frame_times))) if len(frame_times) > 1 else 1.0
    farthest = min(_FARTHEST_SECONDS, step / 2)
    covered = (frame_times >= pose_times[0] - farthest) & (frame_times <= pose_times[-1] + farthest)
    after = np.searchsorted(pose_times, frame_times[covered]).clip(max=len(pose_times) - 1)
    before = np.maximum(after - 1, 0)
    nearer_before = frame_times[covered] - pose_times[before] <= pose_times[after] - frame_times[covered]
    chosen = np.where(nearer_before, before, after)
    far = np.flatnonzero(np.abs(pose_times[chosen] - frame_times[covered]) > farthest)
    if far.size or not len(chosen):
        at = frame_times[covered][far[0]] if far.size else frame_times[0]
        raise BadClip(
            Reason.FRAME_NOT_FOUND,
            f"{where}: no pose within {farthest * 1e3:.0f} ms of the frame at {at:.3f} s (poses from "
            f"{pose_times[0]:.3f} to {pose_times[-1]:.3f} s on the frames' clock); cut the clip or fill the trajectory",
        )
    return chosen.tolist()


def _listed_pictures(path: Path) -> list[tuple[float, str]]:
    listed = []
    with pose_file_faults():
        lines = numbered_lines(path, "timestamp file")
    for number, fields in lines:
        try:
            time, name = fields
            listed.append((float(time), name))
        except ValueError as error:
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line {number}: expected timestamp file") from error
    return listed


def _trajectory(scene: Path) -> Path:
    return next((scene / name for name in _TRAJECTORIES if (scene / name).is_file()), scene / _TRAJECTORIES[0])


def _is_scene(folder: Path) -> bool:
    return _trajectory(folder).is_file()
