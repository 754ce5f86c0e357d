"""Read trajectories in TUM's format, one per clip: [<scene>/]groundtruth.txt or trajectory.txt, and frames.

A line is `timestamp tx ty tz qx qy qz qw`: seconds, camera-to-world. Frames are rgb.txt (`timestamp file` per line) and
its pictures, or video.mp4 whose frame times are on the trajectory's clock. intrinsics.txt is ours, for the format has
none: `fx fy cx cy width height` in pixels. Which way the camera's axes point must be said: TUM's own data sets are
opencv. Each frame takes the pose nearest in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from data_pipeline.bad_clips import BadClip, Reason
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
    camera_axes: Literal["opencv", "opengl"]

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
        rows = _numbers(_trajectory(self.scene), 8, "timestamp tx ty tz qx qy qz qw")
        times, start = self._frame_times()
        # The clock of the frame source starts at its first frame.
        pose_times = rows[:, 0] - start
        chosen = _nearest_poses(pose_times, times, self.where)
        intrinsics = _numbers(self.scene / "intrinsics.txt", 6, "fx fy cx cy width height")
        if len(intrinsics) != 1:
            raise BadClip(
                Reason.POSE_FILE_MALFORMED, f"{self.scene / 'intrinsics.txt'}: {len(intrinsics)} lines, expected one"
            )
        normalized = intrinsics[0, :4] / np.tile(intrinsics[0, 4:], 2)
        track = PoseTrack(
            address=self.address,
            source_id=self.source_id,
            caption=None,
            video_path=None,
            timestamps_microseconds=np.rint(pose_times[chosen] * 1e6).astype(np.int64),
            intrinsics_normalized=np.tile(normalized, (len(chosen), 1)),
            world_to_camera=world_to_camera(rows[chosen, 1:], self.camera_axes, self.where),
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


def world_to_camera(
    rows: Float64[np.ndarray, "frames 7"], camera_axes: Literal["opencv", "opengl"], where: str
) -> Float64[np.ndarray, "frames 3 4"]:
    """Turn `tx ty tz qx qy qz qw`, camera-to-world, into world-to-camera with OpenCV axes; raises BadClip."""
    quaternions = rows[:, 3:]
    lengths = np.linalg.norm(quaternions, axis=1)
    if np.abs(lengths - 1).max() > 1e-2:
        worst = int(np.abs(lengths - 1).argmax())
        raise BadClip(
            Reason.ROTATION_NOT_RIGID, f"{where}: the quaternion of pose {worst} has length {lengths[worst]:.3g}, not 1"
        )
    x, y, z, w = (quaternions / lengths[:, None]).T
    rotations = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
        ],
        axis=1,
    )
    if camera_axes == "opengl":
        rotations = rotations * np.array([1.0, -1.0, -1.0])
    inverse = rotations.transpose(0, 2, 1)
    return np.concatenate([inverse, -inverse @ rows[:, :3, None]], axis=2)


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


def _numbers(path: Path, count: int, what: str) -> Float64[np.ndarray, "lines numbers"]:
    rows = []
    for number, fields in _lines(path, what):
        try:
            row = [float(field) for field in fields]
        except ValueError as error:
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line {number}: {error}; expected {what}") from error
        if len(row) != count or not np.all(np.isfinite(row)):
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line {number}: expected {count} finite numbers {what}")
        rows.append(row)
    return np.array(rows)


def _listed_pictures(path: Path) -> list[tuple[float, str]]:
    listed = []
    for number, fields in _lines(path, "timestamp file"):
        try:
            time, name = fields
            listed.append((float(time), name))
        except ValueError as error:
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path} line {number}: expected timestamp file") from error
    return listed


def _lines(path: Path, what: str) -> list[tuple[int, list[str]]]:
    """Return the fields of lines that are neither empty nor comments, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path}: no such text file; expected lines of {what}") from error
    numbered = [(number, line.split("#", 1)[0].split()) for number, line in enumerate(text.splitlines(), 1)]
    if not any(fields for _, fields in numbered):
        raise BadClip(Reason.POSE_FILE_MALFORMED, f"{path}: empty; expected lines of {what}")
    return [(number, fields) for number, fields in numbered if fields]


def _trajectory(scene: Path) -> Path:
    return next((scene / name for name in _TRAJECTORIES if (scene / name).is_file()), scene / _TRAJECTORIES[0])


def _is_scene(folder: Path) -> bool:
    return _trajectory(folder).is_file()
