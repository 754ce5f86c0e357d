"""Read RealCam-Vid: *.npz with an object array `arr_0`, one record per clip, and the videos they name.

A record has video_path, camera_extrinsics [frames, 4, 4] world-to-camera (OpenCV axes), camera_intrinsics fx fy cx cy
divided by width and height, align_factor (metres per unit), long_caption and short_caption. Frame k belongs to
camera k; times are the video's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.frames import VideoFile
from data_pipeline.layouts.ids import clip_id_of
from data_pipeline.layouts.plain_objects import read_object_array
from data_pipeline.layouts.side_files import SideFiles, known_source, read_side_files
from data_pipeline.layouts.splits_of_files import split_by_file
from data_pipeline.layouts.video_clip import frame_times, named_video
from data_pipeline.realestate10k.track import PoseTrack, check_track

_CAPTION_KEYS = ("long_caption", "short_caption")


def recognise(folder: Path) -> bool:
    """Return whether the folder itself holds .npz files."""
    return any(folder.glob("*.npz"))


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the records of all .npz files; raises ValueError for files that hold something else."""
    beside = read_side_files(folder)
    splits = split_by_file(sorted(folder.glob("*.npz")))
    return tuple(
        _clip(record, path, number, folder, split, beside, settings)
        for path, split in splits.items()
        for number, record in enumerate(read_object_array(path, "arr_0"))
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordClip(PosedClip):
    """A clip that carries its cameras: an .npz file can only be read as a whole."""

    list_file: Path
    number: int
    video: Path
    stated_source: str | None
    each_clip_is_a_source: bool
    world_to_camera: Float64[np.ndarray, "frames 3 4"]
    intrinsics_normalized: Float64[np.ndarray, "frames 4"]

    @property
    def where(self) -> str:
        """The file and the record's number."""
        return f"{self.list_file} record {self.number}"

    @property
    def matched_by_time(self) -> bool:
        """False: cut clips."""
        return False

    def track(self) -> PoseTrack:
        """Take times from the video; raises BadClip."""
        track = PoseTrack(
            address=self.address,
            source_id=known_source(self.clip_id, self.stated_source, self.each_clip_is_a_source, self.where),
            caption=None,
            video_path=None,
            timestamps_microseconds=frame_times(self.video, len(self.world_to_camera), self.where),
            intrinsics_normalized=self.intrinsics_normalized,
            world_to_camera=self.world_to_camera,
        )
        check_track(track, lambda frame: f"{self.where} frame {frame}")
        return track

    def frame_source(self, track: PoseTrack) -> VideoFile:
        """Return the video file; raises BadClip where there is none."""
        return named_video([self.video], self.where)


def _clip(
    record: Any,
    path: Path,
    number: int,
    folder: Path,
    split: str | None,
    beside: SideFiles,
    settings: ReadSettings,
) -> RecordClip:
    where = f"{path} record {number}"
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a dict, got {type(record).__name__}")
    try:
        video = PurePosixPath(str(record["video_path"]))
        poses = np.asarray(record["camera_extrinsics"], np.float64)
        intrinsics = np.asarray(record["camera_intrinsics"], np.float64)
        scale = float(record["align_factor"]) if "align_factor" in record else None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: {type(error).__name__} {error}; expected video_path, camera_extrinsics, camera_intrinsics"
        ) from error
    if poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)) or intrinsics.shape not in ((4,), (len(poses), 4)):
        raise ValueError(
            f"{where}: camera_extrinsics of shape {poses.shape} and camera_intrinsics of shape {intrinsics.shape}; "
            "expected (frames, 4, 4) and (4,) or (frames, 4)"
        )
    clip_id = clip_id_of(video)
    own = next((str(record[key]).strip() for key in _CAPTION_KEYS if str(record.get(key) or "").strip()), None)
    return RecordClip(
        clip_id=clip_id,
        split=split,
        address=str(video),
        captions=beside.captions.get(clip_id) or ((own,) if own else ()),
        metric_scale=beside.metric_scale(clip_id, scale),
        list_file=path,
        number=number,
        video=folder / video,
        stated_source=beside.sources.get(clip_id),
        each_clip_is_a_source=settings.each_clip_is_a_source,
        world_to_camera=np.ascontiguousarray(poses[:, :3]),
        intrinsics_normalized=np.ascontiguousarray(np.broadcast_to(intrinsics, (len(poses), 4))),
    )
