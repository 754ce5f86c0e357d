"""What a reader says of a source folder: its clips, each before any of its files is opened.

Imports no torch: packing starts many processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from data_pipeline.layouts.frames import FrameSource
from data_pipeline.realestate10k.track import PoseTrack, track_sha256

FASTEST = 240
"""Frames per second; times that are closer are no times of a video."""


class Layout(StrEnum):
    """Names of the layouts: what stands in manifests and is given as `layout=<name>`."""

    SOURCE_VIDEOS = "videos"
    CLIPS = "video_clips"
    PIXELSPLAT = "pixelsplat"
    REALCAM_VID = "realcam_vid"
    CAMERACTRL = "cameractrl"
    CAMI2V = "cami2v"
    VIDEOX_FUN = "videox_fun"
    COLMAP = "colmap"
    TUM = "tum"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSettings:
    """What a layout may leave unsaid (docs/layouts.md); None: refuse where it is needed."""

    layout: Literal["auto"] | Layout
    frames_per_second: float | None
    """Of numbered pictures that carry no time."""
    camera_axes: Literal["opencv", "opengl"] | None
    """Axes of poses whose format does not fix them: x right and y down, z forward; or y up, z backward."""
    each_clip_is_a_source: bool
    """Whether clips that name no source video may count as one each."""

    def given(self) -> dict[str, float | str | bool]:
        """Return what was said about the folder, for the manifest."""
        said: dict[str, float | str | bool | None] = {
            "frames_per_second": self.frames_per_second,
            "camera_axes": self.camera_axes,
            "each_clip_is_a_source": self.each_clip_is_a_source or None,
        }
        return {name: value for name, value in said.items() if value is not None}

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.frames_per_second is not None and not 0 < self.frames_per_second <= FASTEST:
            raise ValueError(
                f"pack.reading.frames_per_second={self.frames_per_second:g}: must be above 0 and at most {FASTEST}"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PosedClip(ABC):
    """One clip as its reader found it; small, because all clips of a folder are held and sent to other processes.

    Every file that cameras come from is among its fields as a Path: a remembered inspection counts while they are as
    they were (data_pipeline/inspection.py).
    """

    clip_id: str
    split: str | None
    """None: dealt out by source."""
    address: str
    """Of the video as the layout names it; clips that share it are inspected one after another."""
    captions: tuple[str, ...]
    metric_scale: Any
    """Metres per unit of translation, a number, one per frame or an EstimatedScale; None where it is not known."""

    @property
    @abstractmethod
    def where(self) -> str:
        """The file the cameras come from, for messages."""

    @property
    @abstractmethod
    def matched_by_time(self) -> bool:
        """Whether a camera belongs to the frame nearest in time; otherwise frame k belongs to camera k."""

    @abstractmethod
    def track(self) -> PoseTrack:
        """Read and check the cameras; raises BadClip."""

    @abstractmethod
    def frame_source(self, track: PoseTrack) -> FrameSource:
        """Say where the frames are; raises BadClip where there are none."""

    def poses_sha256(self, track: PoseTrack) -> str:
        """Return the checksum of what the cameras were read from; of the cameras, where that is no file of its own."""
        return track_sha256(track)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFolder:
    """A source folder and its clips, ordered by id."""

    folder: Path
    layout: Layout
    clips: tuple[PosedClip, ...]
