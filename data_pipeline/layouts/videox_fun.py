"""Read VideoX-Fun's lists for camera control: JSON of {file_path, control_file_path, text}, paths below the folder.

control_file_path is a text file: a first line that VideoX-Fun ignores (RealEstate10K's address where it comes from
there), then 19 numbers per frame as in RealEstate10K (docs/pack.md): time, fx fy cx cy divided by width and height, two
zeros, row-major 3x4 world-to-camera, OpenCV axes. VideoX-Fun stretches another number of poses to the video's frames by
interpolating matrix entries; here frame k belongs to camera k and the counts must match.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cami2v.geometry.pose_files.realestate10k import camera_rows
from data_pipeline.bad_clips import BadClip, Reason, pose_file_faults
from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.clip_lists import list_files, read_list, texts_of
from data_pipeline.layouts.ids import clip_id_of
from data_pipeline.layouts.side_files import known_source, read_side_files
from data_pipeline.layouts.splits_of_files import split_by_file
from data_pipeline.layouts.video_clip import NamedClip, frame_times
from data_pipeline.realestate10k.parse import source_id_of
from data_pipeline.realestate10k.track import PoseTrack, check_track

_KEYS = ("file_path", "control_file_path")


def recognise(folder: Path) -> bool:
    """Return whether the folder holds such a list."""
    return bool(list_files(folder, _KEYS))


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the clips of all lists."""
    beside = read_side_files(folder)
    clips = []
    for path, split in split_by_file(list_files(folder, _KEYS)).items():
        for entry in read_list(path, _KEYS):
            clip_id = clip_id_of(Path(Path(entry["file_path"]).name))
            clips.append(
                ControlledClip(
                    clip_id=clip_id,
                    split=split,
                    address=entry["file_path"],
                    captions=texts_of(entry.get("text")) or beside.captions.get(clip_id, ()),
                    metric_scale=beside.metric_scales.get(clip_id),
                    pose_path=folder / entry["control_file_path"],
                    video=folder / entry["file_path"],
                    stated_source=beside.sources.get(clip_id),
                    each_clip_is_a_source=settings.each_clip_is_a_source,
                )
            )
    return tuple(clips)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ControlledClip(NamedClip):
    """A video and its camera file, both named by a list."""

    stated_source: str | None
    each_clip_is_a_source: bool

    def track(self) -> PoseTrack:
        """Parse the camera file; one whose times are all equal has none, and takes the video's. Raises BadClip."""
        try:
            header, *lines = self.pose_path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{self.pose_path}: not a camera file ({error})") from error
        with pose_file_faults():
            rows = camera_rows(list(enumerate(lines, 2)), self.pose_path)
        times = np.rint(rows[:, 0]).astype(np.int64)
        if len(times) > 1 and np.all(times == times[0]):
            times = frame_times(self.video, len(rows), self.where)
        is_address = header.strip().startswith(("http://", "https://"))
        stated = self.stated_source or (source_id_of(header.strip(), self.pose_path) if is_address else None)
        track = PoseTrack(
            address=header.strip() if is_address else self.address,
            source_id=known_source(self.clip_id, stated, self.each_clip_is_a_source, self.where),
            caption=None,
            video_path=None,
            timestamps_microseconds=times,
            intrinsics_normalized=np.ascontiguousarray(rows[:, 1:5]),
            world_to_camera=np.ascontiguousarray(rows[:, 7:].reshape(-1, 3, 4)),
        )
        check_track(track, lambda frame: f"{self.where} line {2 + frame}")
        return track
