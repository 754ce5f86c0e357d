"""Read CameraCtrl's prepared RealEstate10K: annotations/<split>.json, pose_files/, video_clips/.

An annotation is a list of {clip_path, pose_file, caption}, paths below the folder. Camera files are RealEstate10K's own
(docs/pack.md); frame k of a clip belongs to camera k.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.clip_lists import list_files, read_list, texts_of
from data_pipeline.layouts.side_files import read_side_files
from data_pipeline.layouts.splits_of_files import split_by_file
from data_pipeline.layouts.video_clip import NamedClip
from data_pipeline.realestate10k.parse import parse_pose_file
from data_pipeline.realestate10k.track import PoseTrack

_KEYS = ("clip_path", "pose_file")


def recognise(folder: Path) -> bool:
    """Return whether annotations/ or the folder itself holds such a list."""
    return bool(_lists(folder))


def find_clips(folder: Path, settings: ReadSettings) -> tuple[PosedClip, ...]:
    """List the clips of all annotations."""
    beside = read_side_files(folder)
    clips = []
    for path, split in split_by_file(_lists(folder)).items():
        for entry in read_list(path, _KEYS):
            clip_id = Path(entry["clip_path"]).stem
            clips.append(
                AnnotatedClip(
                    clip_id=clip_id,
                    split=split,
                    address=entry["clip_path"],
                    captions=texts_of(entry.get("caption")) or beside.captions.get(clip_id, ()),
                    metric_scale=beside.metric_scales.get(clip_id),
                    pose_path=folder / entry["pose_file"],
                    video=folder / entry["clip_path"],
                )
            )
    return tuple(clips)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnotatedClip(NamedClip):
    """A cut clip and its camera file, both named by an annotation."""

    def track(self) -> PoseTrack:
        """Parse the camera file; raises BadClip."""
        if not self.pose_path.is_file():
            raise BadClip(Reason.POSE_FILE_MALFORMED, f"{self.pose_path}: no such file (needed by {self.address})")
        return parse_pose_file(self.pose_path)


def _lists(folder: Path) -> list[Path]:
    return list_files(folder / "annotations", _KEYS) or list_files(folder, _KEYS)
