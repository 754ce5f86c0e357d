"""Cut the clips of a camera list out of a folder of source videos, several videos at a time."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.bad_clips import Reason
from data_pipeline.camera_lists import CameraList, read_camera_list
from data_pipeline.clips.cut import ClipResult, Cutter
from data_pipeline.clips.record import write_whole
from data_pipeline.layouts.ids import CLIP_ID, SPLIT
from data_pipeline.parallel import default_processes, progress_bar, workers
from data_pipeline.realestate10k.encode import FrameFormat

REPORT_NAME = "clips_report.json"
_FAR_MICROSECONDS = 8000  # beyond it annotation and frame are known to disagree visibly (RealEstate10K's own tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsSettings:
    """How clips are cut."""

    frame_format: FrameFormat
    processes: int | None
    """None: one for each core this process may use."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        form = self.frame_format
        if form.short_side < 16 or form.gop < 1 or not 0 <= form.crf <= 51:
            raise ValueError(f"clips.frame_format={form}: expected short_side >= 16, gop >= 1 and crf from 0 to 51")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"clips.processes={self.processes}: must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsReport:
    """What became of every clip of the list."""

    results: tuple[ClipResult, ...]

    @property
    def there(self) -> int:
        """Number of clips in the output."""
        return sum(result.reason is None for result in self.results)

    def by_reason(self) -> dict[str, list[ClipResult]]:
        """Group what is not there."""
        grouped: dict[str, list[ClipResult]] = defaultdict(list)
        for result in self.results:
            if result.reason is not None:
                grouped[result.reason].append(result)
        return dict(sorted(grouped.items()))

    def far(self) -> dict[str, int]:
        """Return the clips with a frame more than 8 ms from its camera's time, and the largest distance."""
        distances = {result.clip_id: result.farthest_microseconds for result in self.results}
        return {clip_id: distance for clip_id, distance in sorted(distances.items()) if distance > _FAR_MICROSECONDS}

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "clips_listed": len(self.results),
            "clips_there": self.there,
            "missing_by_reason": {
                reason: {"clips": len(results), "messages": {result.clip_id: result.message for result in results}}
                for reason, results in self.by_reason().items()
            },
            "timestamps_off_by_more_than_8_ms": self.far(),
        }

    def lines(self) -> list[str]:
        """Say it in a few lines for a person."""
        total, kept = len(self.results), sum(result.kept for result in self.results)
        lines = [
            f"{total} clips in the list, {self.there} there ({100 * self.there / total:.1f} %), {kept} of them before"
        ]
        for reason, results in self.by_reason().items():
            lines.append(f"  {reason}: {len(results)}, e.g. {results[0].clip_id}: {results[0].message}")
        if far := self.far():
            lines.append(
                f"{len(far)} clips have a frame more than 8 ms from its annotated time "
                f"(at most {max(far.values()) / 1000:.1f} ms)"
            )
        return lines


def cut_clips(videos: Path, cameras: Path, output: Path, settings: ClipsSettings, *, progress: bool) -> ClipsReport:
    """Write a raw folder of cut clips that `pack` reads; a clip's camera file comes last, so that it announces no half.

    Clips that are there, made of the same video and cameras with the same settings, are kept. Raises ValueError for a
    missing folder, names that `pack` cannot take, or an `output` that holds the cameras themselves.
    """
    settings.validate()
    if not videos.is_dir():
        raise ValueError(
            f"videos={videos}: no such folder; expected <video id>.mp4, as cami2v data download writes them"
        )
    listed = read_camera_list(cameras)
    _check_names(listed)
    if (output / "pose_files").resolve() in (cameras.resolve(), (cameras / "pose_files").resolve()):
        raise ValueError(f"output={output}: its pose_files/ are the cameras that are read; choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    cutter = Cutter(videos=videos, output=output, frame_format=settings.frame_format)
    results = [
        ClipResult(
            clip_id=clip_id, reason=Reason.POSE_FILE_MALFORMED, message=message, kept=False, farthest_microseconds=0
        )
        for clip_id, message in listed.malformed.items()
    ]
    processes = min(settings.processes or default_processes(), max(len(listed.videos), 1))
    with (
        workers(processes) as run,
        progress_bar(None, what="cut", unit="clip", total=listed.clips, show=progress) as bar,
    ):
        bar.update(len(results))
        for found in run(cutter.cut, listed.videos):
            results += found
            bar.update(len(found))
    report = ClipsReport(results=tuple(sorted(results, key=lambda result: result.clip_id)))
    write_whole(output / REPORT_NAME, (json.dumps(report.as_json(), indent=1) + "\n").encode())
    return report


def _check_names(listed: CameraList) -> None:
    """Refuse what `pack` would refuse, before hours of cutting."""
    clips = [clip for video in listed.videos for clip in video.clips]
    for clip in clips:
        if not CLIP_ID.fullmatch(clip.clip_id):
            raise ValueError(f"{clip.path}: a clip id may have letters, digits, '-' and '_' only")
        if clip.split is not None and not SPLIT.fullmatch(clip.split):
            raise ValueError(f"{clip.path.parent}: a split's name may have lower-case letters, digits and '_' only")
    nested = [clip for clip in clips if clip.split is not None]
    if nested and len(nested) < len(clips):
        raise ValueError(
            f"{nested[0].path.parent.parent}: has camera files both directly and below {nested[0].path.parent}; "
            "use one or the other"
        )
