"""Find the clips of a raw folder: camera files, the video each belongs to, captions, splits.

Two layouts, told apart by the folder that is there:
    videos/<source>.mp4      whole source videos; a camera line belongs to the frame nearest to its timestamp
    video_clips/<clip>.mp4   cut clips; frame k belongs to camera line k
Either may have one more level, <split>/, as may pose_files/.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.realestate10k.parse import PoseTrack, first_line, parse_captions

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov")
_CLIP_ID = re.compile(r"[A-Za-z0-9_-]+")
_SPLIT = re.compile(r"[a-z][a-z0-9_]*")


class Layout(StrEnum):
    """How frames and camera lines belong together."""

    SOURCE_VIDEOS = "videos"
    CLIPS = "video_clips"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipFiles:
    """Where the parts of one clip are, before any of them is opened."""

    clip_id: str
    split: str | None
    address: str
    pose_path: Path
    captions: tuple[str, ...]
    metric_scale: Any
    """As read from metric_scale.json; None where the folder has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDataset:
    """A raw folder and the clips its camera files announce, ordered by id."""

    folder: Path
    layout: Layout
    clips: tuple[ClipFiles, ...]

    def video_path(self, clip: ClipFiles, track: PoseTrack) -> Path:
        """Return the clip's video file; raises BadClip where there is none."""
        name = track.source_id if self.layout is Layout.SOURCE_VIDEOS else clip.clip_id
        folder = self.folder / self.layout.value
        folders = [folder, *([folder / clip.split] if clip.split else [])]
        candidates = [each / f"{name}{suffix}" for each in folders for suffix in VIDEO_SUFFIXES]
        if track.video_path and self.layout is Layout.CLIPS:
            candidates += [folder / track.video_path, self.folder / track.video_path]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        raise BadClip(Reason.VIDEO_MISSING, f"{candidates[0]}: no such video (needed by {clip.pose_path})")


def find_clips(folder: Path) -> RawDataset:
    """List the clips of a raw folder.

    Raises ValueError where the folder has neither layout, both, no camera files, or a clip id twice.
    """
    if not folder.is_dir():
        raise ValueError(f"source={folder}: no such folder; expected a RealEstate10K-like folder or 'synthetic'")
    layout = _detect_layout(folder)
    pose_paths = _pose_paths(folder)
    captions = _captions(folder)
    scales = _metric_scales(folder)
    clips = [
        ClipFiles(
            clip_id=path.stem,
            split=split,
            address=first_line(path),
            pose_path=path,
            captions=captions.get(path.stem, ()),
            metric_scale=scales.get(path.stem),
        )
        for path, split in pose_paths
    ]
    return RawDataset(folder=folder, layout=layout, clips=tuple(clips))


def _detect_layout(folder: Path) -> Layout:
    present = [layout for layout in Layout if (folder / layout.value).is_dir()]
    if len(present) == 1:
        return present[0]
    have = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
    raise ValueError(
        f"source={folder}: expected either videos/ (whole source videos) or video_clips/ (cut clips), "
        f"found {'both' if present else 'neither'} (it holds {have})"
    )


def _pose_paths(folder: Path) -> list[tuple[Path, str | None]]:
    poses = folder / "pose_files"
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
        if not _CLIP_ID.fullmatch(path.stem):
            raise ValueError(
                f"{path}: a clip id may have letters, digits, '-' and '_' only (tar members share it as key)"
            )
        if split is not None and not _SPLIT.fullmatch(split):
            raise ValueError(f"{path.parent}: a split's name may have lower-case letters, digits and '_' only")
    twice = [clip_id for clip_id, count in Counter(path.stem for path, _ in paths).items() if count > 1]
    if twice:
        raise ValueError(
            f"{poses}: {len(twice)} clip ids are in several splits, first {twice[0]}; give each clip one split"
        )
    return sorted(paths, key=lambda entry: entry[0].stem)


def _captions(folder: Path) -> dict[str, tuple[str, ...]]:
    merged: dict[str, tuple[str, ...]] = {}
    for path in sorted({*folder.glob("captions*.json"), *folder.glob("*captions.json")}):
        merged |= parse_captions(path)
    return merged


def _metric_scales(folder: Path) -> dict[str, Any]:
    path = folder / "metric_scale.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected {{clip: metres per unit}} or {{clip: [metres per unit, ...]}}")
    return content
