"""The contract of a measure: a clip of a video set in, a JSON row out; and what the numbers in its rows are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import UInt8

from cami2v.evaluation.folder import RequestedCameras
from cami2v.video import read_frames

Frames = UInt8[np.ndarray, "frames height width 3"]
Row = dict[str, Any]
"""What a measure says of one clip, as JSON. Every stored row also has clip_id, video_set and measured_with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that every clip has, or fails to have."""

    name: str
    """Key in results.json."""
    label: str
    """Head of its column."""
    unit: str
    better: Literal["lower", "higher"]
    meaning: str
    """One sentence: what is compared, over which frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that could not be measured, and why."""

    trial: str
    """Which of several attempts; empty where there is one."""
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One of several attempts at a clip."""

    trial: str
    failure: str | None
    """Its reason; None where the attempt succeeded."""
    detail: str
    values: dict[str, float]
    """Figures by name, those of `Measure.values`; empty for a failure."""
    world_to_camera: Any = None
    """The path it estimated, as nested lists (frames, 3, 4); None where it estimates none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One number per frame of a clip, for its page."""

    label: str
    unit: str
    values: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownMatches:
    """A few points that two frames of a clip have in common, for its page; (u, v) from 0 to 1."""

    frames: tuple[int, int]
    points: list[list[float]]
    partners: list[list[float]]


class VideoFailure(StrEnum):
    """What is wrong with a video, before any measure looks at it."""

    UNREADABLE_VIDEO = "unreadable video"
    MISSING_VIDEO = "missing video"
    WRONG_FRAME_COUNT = "wrong frame count"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusableVideo:
    """A video that cannot be judged, and why."""

    reason: VideoFailure
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedClip:
    """One clip of one video set. Picklable: clips are spread over processes."""

    clip_id: str
    video_set: str
    video: Path
    true_video: Path
    """Missing where nobody has the truth."""
    cameras: RequestedCameras
    row: Path | None = None
    """Where what the measure of `Measure.needs` says of this video lies, and of the true one."""
    true_row: Path | None = None

    def frames(self) -> Frames | UnusableVideo:
        """Read the video. Raises ValueError for frames of another size than the cameras' intrinsics belong to."""
        if not self.video.exists():
            return UnusableVideo(reason=VideoFailure.MISSING_VIDEO, detail=f"no {self.video.name}")
        try:
            frames = read_frames(self.video)
        except ValueError as error:
            return UnusableVideo(reason=VideoFailure.UNREADABLE_VIDEO, detail=str(error))
        expected = (len(self.cameras.world_to_camera), self.cameras.height, self.cameras.width, 3)
        if len(frames) != expected[0]:
            return UnusableVideo(
                reason=VideoFailure.WRONG_FRAME_COUNT, detail=f"{len(frames)} frames for {expected[0]} cameras"
            )
        if frames.shape != expected:
            raise ValueError(
                f"{self.video}: frames of {frames.shape[1]}x{frames.shape[2]} (height x width), but its cameras' "
                f"intrinsics are for {expected[1]}x{expected[2]}; resize the video or scale the intrinsics"
            )
        return frames


class Measure(ABC):
    """Judges clips one at a time, each by itself: in any order, in any process, again where it was stopped.

    Instances are picklable.
    """

    figures: ClassVar[Sequence[Figure]] = ()
    isolated: ClassVar[bool] = False
    """True for native code on one thread that may abort: every clip is judged in a process of its own pool.
    False for networks: they run in the calling process, on its device."""
    needs: ClassVar[str | None] = None
    """Another measure whose rows this one reads (`JudgedClip.row`, `true_row`); it is to be measured before."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name of its folder under measurements/, and its key under `evaluation.measures`."""

    def prepare(self) -> None:  # noqa: B027  # most measures need nothing
        """Raise ValueError where what judging needs is not there (weights); called before anything is generated."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return everything that decides a result, as JSON: settings, versions, hashes of weights.

        A stored row made with anything else is measured again.
        """

    def judges(self, video_set: str) -> bool:
        """Tell whether the clips of a set are judged at all."""
        return True

    @abstractmethod
    def judge(self, clip: JudgedClip) -> Row:
        """Measure a clip. What is wrong with a video is a row with a failure, never an exception."""

    def crashed(self, clip: JudgedClip) -> Row:
        """Return the row of a clip whose process died (`isolated` measures)."""
        raise NotImplementedError(f"{type(self).__name__} does not run in processes of its own")

    def values(self, row: Row) -> dict[str, float | None]:
        """Return a clip's figures by name: None where the clip failed, infinity where that is the value.

        Empty where the row is not about the clip alone.
        """
        return {}

    def failures(self, row: Row) -> list[Failure]:
        """Return what could not be measured of a clip."""
        return [Failure(trial="", reason=row["failure"], detail=row["detail"])] if row.get("failure") else []

    def penalties(self, row: Row) -> dict[str, float]:
        """Return what a failed clip counts as, at least, in means over all clips; no entry: it is left out."""
        return {}

    def attempts(self, row: Row) -> list[Attempt]:
        """Return the attempts at a clip, for measures that make several."""
        return []

    def curves(self, row: Row, cameras: RequestedCameras) -> list[Curve]:
        """Return what the measure says of every frame of a clip; empty where it failed."""
        return []

    def matches(self, row: Row) -> ShownMatches | None:
        """Return matches to look at, of measures that look for some."""
        return None

    def facts(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what else is to be said of one video set: counts of trials, spreads."""
        return {}

    def distances(self, rows: Mapping[str, Iterable[Row]]) -> dict[str, dict[str, Any]]:
        """Return, by video set, a number that belongs to the whole set and not to clips (FVD).

        Rows are whole, in clip order, and may come from disk one by one: each set's are to be gone through once.

        `label`, `value` (None: there is none, see `notes`), `clips`, `notes` (a list of sentences that go with the
        number), and whatever else a reader must know to compare it, in the order to print it in.
        """
        return {}

    def recorded(self, row: Row) -> Row:
        """Return what of a row a report keeps, for every method but `distances`; the rest stays in measurements/."""
        return row
