"""Find the clips of a raw folder: camera files, the video each belongs to, captions, splits.

Two layouts, told apart by the folder that is there:
    videos/<source>.mp4      whole source videos; a camera line belongs to the frame nearest to its timestamp
    video_clips/<clip>.mp4   cut clips; frame k belongs to camera line k
Either may have one more level, <split>/, as may pose_files/.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cami2v.file_hash import file_sha256
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.clip import Layout, PosedClip, SourceFolder
from data_pipeline.layouts.frames import VideoFile
from data_pipeline.layouts.ids import CLIP_ID, SPLIT
from data_pipeline.metric_scale.side_file import read_beside
from data_pipeline.realestate10k.parse import first_line, parse_captions, parse_pose_file
from data_pipeline.realestate10k.track import PoseTrack

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")
LAYOUTS = (Layout.SOURCE_VIDEOS, Layout.CLIPS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipFiles(PosedClip):
    """Where the parts of one clip are."""

    folder: Path
    layout: Layout
    pose_path: Path

    @property
    def where(self) -> str:
        """The camera file."""
        return str(self.pose_path)

    @property
    def matched_by_time(self) -> bool:
        """True for whole source videos."""
        return self.layout is Layout.SOURCE_VIDEOS

    def track(self) -> PoseTrack:
        """Parse the camera file."""
        return parse_pose_file(self.pose_path)

    def frame_source(self, track: PoseTrack) -> VideoFile:
        """Return the clip's video file; raises BadClip where there is none."""
        name = track.source_id if self.matched_by_time else self.clip_id
        folder = self.folder / self.layout.value
        folders = [folder, *([folder / self.split] if self.split else [])]
        candidates = [each / f"{name}{suffix}" for each in folders for suffix in VIDEO_SUFFIXES]
        if track.video_path and self.layout is Layout.CLIPS:
            candidates += [each / track.video_path for each in (*folders, self.folder)]
        for candidate in candidates:
            if candidate.is_file():
                return VideoFile(candidate)
        raise BadClip(Reason.VIDEO_MISSING, f"{candidates[0]}: no such video (needed by {self.pose_path})")

    def poses_sha256(self, track: PoseTrack) -> str:
        """Return the checksum of the camera file."""
        return file_sha256(self.pose_path)


def find_clips(folder: Path, layout: Layout | None = None) -> SourceFolder:
    """List the clips of a raw folder, in the layout that is there or in the named one.

    Raises ValueError where the folder has neither layout, both, no camera files, or a clip id twice.
    """
    if not folder.is_dir():
        raise ValueError(f"source={folder}: no such folder; expected a RealEstate10K-like folder or 'synthetic'")
    layout = _detect_layout(folder) if layout is None else layout
    captions = read_captions(folder)
    scales = read_metric_scales(folder)
    clips = [
        ClipFiles(
            clip_id=path.stem,
            split=split,
            folder=folder,
            layout=layout,
            address=first_line(path),
            pose_path=path,
            captions=captions.get(path.stem, ()),
            metric_scale=scales.get(path.stem),
        )
        for path, split in pose_paths(folder / "pose_files")
    ]
    return SourceFolder(folder=folder, layout=layout, clips=tuple(clips))


def _detect_layout(folder: Path) -> Layout:
    present = [each for each in LAYOUTS if (folder / each.value).is_dir()]
    if len(present) == 1:
        return present[0]
    have = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"source={folder}: expected videos/ (whole source videos), video_clips/ (cut clips) or another layout of "
        f"docs/layouts.md, found {'both: say which with layout=<name>' if present else 'neither'} (it holds {have})"
    )


def pose_paths(poses: Path) -> list[tuple[Path, str | None]]:
    """List camera files [<split>/]<clip>.txt with their splits, by clip; raises ValueError for ids nothing can have."""
    flat = sorted(poses.glob("*.txt"))
    by_split = sorted(poses.glob("*/*.txt"))
    if flat and by_split:
        raise ValueError(
            f"{poses}: has camera files both directly and below {by_split[0].parent}; use one or the other"
        )
    if not flat and not by_split:
        raise ValueError(f"{poses}: no camera files; expected <clip>.txt or <split>/<clip>.txt")
    paths: list[tuple[Path, str | None]] = [(path, None) for path in flat]
    paths += [(path, path.parent.name) for path in by_split]
    for path, split in paths:
        if not CLIP_ID.fullmatch(path.stem):
            raise ValueError(
                f"{path}: a clip id may have letters, digits, '-' and '_' only (tar members share it as key)"
            )
        if split is not None and not SPLIT.fullmatch(split):
            raise ValueError(f"{path.parent}: a split's name may have lower-case letters, digits and '_' only")
    twice = [clip_id for clip_id, count in Counter(path.stem for path, _ in paths).items() if count > 1]
    if twice:
        raise ValueError(
            f"{poses}: {len(twice)} clip ids are in several splits, first {twice[0]}; give each clip one split"
        )
    return sorted(paths, key=lambda entry: entry[0].stem)


def read_captions(folder: Path) -> dict[str, tuple[str, ...]]:
    """Merge the folder's caption files, keyed by clip id."""
    merged: dict[str, tuple[str, ...]] = {}
    for path in sorted({*folder.glob("captions*.json"), *folder.glob("*captions.json")}):
        merged |= parse_captions(path)
    return merged


def read_metric_scales(folder: Path) -> dict[str, Any]:
    """Read the folder's metric_scale.json and depth_scale.json, keyed by clip id; the first, a person's word, wins."""
    path = folder / "metric_scale.json"
    estimates: dict[str, Any] = dict(read_beside(folder).estimates())
    if not path.is_file():
        return estimates
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {{clip: metres per unit}} or {{clip: [metres per unit, ...]}}")
    return estimates | content
