"""Videos that anyone made, with their cameras, as the folder that the measure stage reads: linked, not copied."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cami2v.evaluation.folder import GENERATED, GROUND_TRUTH, EvaluationFolder, RequestedCameras
from cami2v.video import VideoInfo, probe
from data_pipeline.array_tasks import Share
from data_pipeline.evaluation_manifest import EvaluationManifest, ManifestClip, manifest_of, poses_sha256
from launch.camera_files import CameraFile, Framing, camera_files, read_camera_file

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeVideosSettings:
    """Keys of conf/evaluate.yaml."""

    videos: str | Mapping[str, str]
    """A folder, or folders by the name of their set."""
    cameras: str
    truth: str | None
    camera_stride: int | None
    """Frame k belongs to camera k * camera_stride; None: to camera k, and there are equally many."""
    framing: Framing

    def __post_init__(self) -> None:
        """Raise ValueError for a stride out of range and names that no set can have."""
        if self.camera_stride is not None and self.camera_stride < 1:
            raise ValueError(f"camera_stride={self.camera_stride}: must be at least 1, or null")
        for name in {} if isinstance(self.videos, str) else self.videos:
            if name == GROUND_TRUTH or not name.replace("-", "_").isidentifier():
                raise ValueError(
                    f"videos.{name}: names of video sets are letters, digits, '-' and '_', and not {GROUND_TRUTH} "
                    "(that is truth=<folder>)"
                )

    def folders(self) -> dict[str, Path]:
        """Return the folders by video set, the truth first."""
        sets = {GENERATED: self.videos} if isinstance(self.videos, str) else dict(self.videos)
        given = sets if self.truth is None else {GROUND_TRUTH: self.truth, **sets}
        return {name: Path(folder).expanduser() for name, folder in given.items()}


class MadeVideos:
    """The videos of some folders and the cameras they are judged by.

    Raises ValueError, in one line, for what cannot be meant: folders without videos, videos without cameras, frames of
    several sizes, and cameras that no video has the frames for. A single video that cannot be read, is missing or has
    another number of frames is a failure of its clip, not an error.
    """

    def __init__(self, settings: MadeVideosSettings, manifest: EvaluationManifest | None, clips: int | None) -> None:
        self.settings = settings
        self.given = manifest
        self.folders = settings.folders()
        self.files = {name: _videos(folder, _key(settings, name)) for name, folder in self.folders.items()}
        self.camera_files = camera_files(Path(settings.cameras).expanduser())
        present = sorted({clip_id for files in self.files.values() for clip_id in files})
        self.clip_ids = list(manifest.clip_ids) if manifest else present[:clips]
        self._check_cameras_exist()
        self.cameras_without_video = len(self.camera_files.keys() - set(present)) if manifest is None else 0

    @cached_property
    def manifest(self) -> EvaluationManifest:
        """The clips, with what is known of them: nobody says their seeds and captions, unless a manifest was given."""
        return self.given or manifest_of([self._clip(clip_id) for clip_id in self.clip_ids])

    def identity(self) -> dict[str, Any]:
        """Return what is evaluated."""
        return {
            "videos": {name: str(folder.resolve()) for name, folder in self.folders.items()},
            "cameras": str(Path(self.settings.cameras).expanduser().resolve()),
            "camera_stride": self.settings.camera_stride,
            "framing": self.settings.framing,
            "frames": self.manifest.frames() or "as many as a clip has cameras",
            "resolution": list(self.size),
            "clips": len(self.clip_ids),
            "cameras_without_video": self.cameras_without_video,
            "manifest_sha256": self.manifest.sha256,
            "checkpoint": None,
        }

    def place(self, folder: EvaluationFolder, share: Share) -> None:
        """Claim the folder, write the cameras of a share's clips and link their videos."""
        clips = {clip.clip_id: clip for clip in self.manifest.clips}
        self._check_frame_counts()
        cameras = {clip_id: self._requested(clips[clip_id]) for clip_id in share.of(self.clip_ids)}
        folder.claim(self.identity(), self.manifest.as_json())
        for name in self.folders:
            (folder.root / "videos" / name).mkdir(parents=True, exist_ok=True)
        for clip_id, requested in cameras.items():
            if not folder.cameras(clip_id).exists():
                folder.write_cameras(clip_id, requested)
            for name, files in self.files.items():
                if clip_id in files:
                    _link(folder.video(name, clip_id), files[clip_id])

    @cached_property
    def infos(self) -> dict[tuple[str, str], VideoInfo]:
        """What the readable videos say of themselves, by set and clip."""
        found = {}
        for name, files in self.files.items():
            for clip_id in filter(files.__contains__, self.clip_ids):
                info = _readable(files[clip_id])
                if info is not None:
                    found[name, clip_id] = info
        if not found:
            raise ValueError(f"videos={self.settings.videos}: none of the videos to judge can be read")
        return found

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of all videos."""
        first, *others = self.infos.items()
        for (name, clip_id), info in others:
            if (info.height, info.width) != (first[1].height, first[1].width):
                raise ValueError(
                    f"{self.files[name][clip_id]}: frames of {info.height}x{info.width} (height x width), "
                    f"{self.files[first[0][0]][first[0][1]]} has {first[1].height}x{first[1].width}; one evaluation "
                    "takes videos of one size, errors at two sizes do not compare: bring them to one, or evaluate apart"
                )
        return first[1].height, first[1].width

    @cached_property
    def _usual_frames(self) -> int:
        """The number of frames that most videos have."""
        counts = Counter(info.frames for info in self.infos.values())
        return min(counts, key=lambda frames: (-counts[frames], frames))

    def _clip(self, clip_id: str) -> ManifestClip:
        file = self._cameras(clip_id)
        count, stride = len(file.world_to_camera), self.settings.camera_stride
        indices = range(count) if stride is None else range(0, self._usual_frames * stride, stride)
        if indices[-1] >= count:
            raise ValueError(
                f"camera_stride={stride}: videos of {len(indices)} frames need {indices[-1] + 1} cameras, {file.path} "
                f"has {count}; lower it"
            )
        return ManifestClip(
            clip_id=clip_id,
            frame_indices=tuple(indices),
            frame_stride=stride or 1,
            seed=None,
            caption_sha256=None,
            poses_sha256=poses_sha256(file.world_to_camera[list(indices)]),
        )

    def _requested(self, clip: ManifestClip) -> RequestedCameras:
        file = self._cameras(clip.clip_id)
        requested = file.requested(file.chosen(clip.frame_indices), *self.size, self.settings.framing)
        if clip.poses_sha256 not in (None, poses_sha256(requested.world_to_camera)):
            raise ValueError(
                f"evaluation.manifest: clip {clip.clip_id}: the poses of its frames in {file.path} are not the "
                "manifest's; give the camera files it was made from"
            )
        return requested

    def _cameras(self, clip_id: str) -> CameraFile:
        return read_camera_file(self.camera_files[clip_id])

    def _check_cameras_exist(self) -> None:
        missing = [clip_id for clip_id in self.clip_ids if clip_id not in self.camera_files]
        if missing:
            what = "clips of evaluation.manifest" if self.given else "videos"
            raise ValueError(
                f"cameras={self.settings.cameras}: has no cameras for {len(missing)} of {len(self.clip_ids)} {what} "
                f"(first {missing[0]}); a video <clip>.mp4 needs a camera file <clip>.txt"
            )

    def _check_frame_counts(self) -> None:
        """Raise ValueError where not one video has a frame for each camera: that is a mistake, not a broken video."""
        expected = {clip.clip_id: len(clip.frame_indices) for clip in self.manifest.clips}
        if any(info.frames == expected[clip_id] for (_, clip_id), info in self.infos.items()):
            return
        (name, clip_id), info = next(iter(self.infos.items()))
        raise ValueError(
            f"{self.files[name][clip_id]}: {info.frames} frames, but {self.camera_files[clip_id]} has "
            f"{expected[clip_id]} cameras for it, and no other video fits either; set camera_stride=<n> where frame k "
            "belongs to camera k * n, or give an evaluation.manifest"
        )


def _videos(folder: Path, key: str) -> dict[str, Path]:
    """Return the videos of a folder by clip. Raises ValueError for none, and for two of one clip."""
    if not folder.is_dir():
        what = f"a file; give its folder, {folder.parent}" if folder.is_file() else "no such folder"
        raise ValueError(f"{key}={folder}: {what}; expected videos <clip>.mp4")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if (other := found.setdefault(path.stem, path)) != path:
            raise ValueError(f"{key}={folder}: {path.name} and {other.name} are both of clip {path.stem}; keep one")
    if not found:
        raise ValueError(f"{key}={folder}: no videos; expected <clip> with one of {', '.join(SUFFIXES)}")
    return found


def _key(settings: MadeVideosSettings, name: str) -> str:
    if name == GROUND_TRUTH:
        return "truth"
    return "videos" if isinstance(settings.videos, str) else f"videos.{name}"


def _readable(path: Path) -> VideoInfo | None:
    try:
        return probe(path)
    except ValueError:
        return None


def _link(link: Path, video: Path) -> None:
    """Let `link` be the video; where it already is nothing happens."""
    target = video.resolve()
    if link.is_symlink() and link.readlink() == target:
        return
    partial = link.with_name(f".{link.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
