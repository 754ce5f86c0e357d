"""Cut the clips of a camera list out of a folder of source videos, several videos at a time."""

from __future__ import annotations

import errno
import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_pipeline.array_tasks import Share, share_of
from data_pipeline.bad_clips import Reason
from data_pipeline.camera_lists import CameraList, SourceVideo, read_camera_list
from data_pipeline.clips.cut import ClipResult, Cutter
from data_pipeline.clips.record import write_whole
from data_pipeline.file_locks import passing_lock
from data_pipeline.layouts.ids import CLIP_ID, SPLIT
from data_pipeline.parallel import default_processes, progress_bar, workers
from data_pipeline.realestate10k.encode import FrameFormat

logger = logging.getLogger(__name__)

REPORT_NAME = "clips_report.json"
_FAR_MICROSECONDS = 8000  # beyond it annotation and frame are known to disagree visibly (RealEstate10K's own tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsSettings:
    """How clips are cut."""

    frame_format: FrameFormat
    processes: int | None
    """None: one for each core this process may use."""
    task: int | None
    tasks: int | None
    """Which share of the videos this run cuts; None: what Slurm's job array says, all of them outside of one."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        form = self.frame_format
        if form.short_side < 16 or form.gop < 1 or not 0 <= form.crf <= 51:
            raise ValueError(f"clips.frame_format={form}: expected short_side >= 16, gop >= 1 and crf from 0 to 51")
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"clips.processes={self.processes}: must be at least 1")
        self.share()

    def share(self) -> Share:
        """Return this run's share of the videos."""
        return share_of(self.task, self.tasks, settings="clips")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsReport:
    """What became of every clip of the list."""

    path: Path
    """Where it is written."""
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
        percent = 100 * self.there / max(total, 1)  # a task may be left without videos
        lines = [f"{total} clips in the list, {self.there} there ({percent:.1f} %), {kept} of them before"]
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

    Clips that are there, made of the same video and cameras with the same settings, are kept. Several runs may work on
    one `output`. Raises ValueError for a missing folder, names that `pack` cannot take, an `output` that holds the
    cameras themselves, and a disk that refuses: what was cut until then stays.
    """
    settings.validate()
    share = settings.share()
    if not videos.is_dir():
        raise ValueError(
            f"videos={videos}: no such folder; expected <video id>.mp4, as cami2v data download writes them"
        )
    listed = read_camera_list(cameras)
    _check_names(listed)
    if (output / "pose_files").resolve() in (cameras.resolve(), (cameras / "pose_files").resolve()):
        raise ValueError(f"output={output}: its pose_files/ are the cameras that are read; choose another folder")
    results = [
        ClipResult(
            clip_id=clip_id, reason=Reason.POSE_FILE_MALFORMED, message=message, kept=False, farthest_microseconds=0
        )
        for clip_id, message in listed.malformed.items()
        if share.task == 0
    ]
    cutter = Cutter(videos=videos, output=output, frame_format=settings.frame_format, wait=False)
    name = REPORT_NAME if share.tasks == 1 else f"clips_report.{share.task}-of-{share.tasks}.json"
    with _one_line(output):
        output.mkdir(parents=True, exist_ok=True)
        results += _cut_all(cutter, share.of(listed.videos), settings, progress)
        report = ClipsReport(path=output / name, results=tuple(sorted(results, key=lambda result: result.clip_id)))
        with passing_lock(cutter.locks / f"{name}.lock", wait=True):
            write_whole(report.path, (json.dumps(report.as_json(), indent=1) + "\n").encode())
        with suppress(OSError):  # another run is still at work
            cutter.locks.rmdir()
    return report


def _cut_all(
    cutter: Cutter, videos: Sequence[SourceVideo], settings: ClipsSettings, progress: bool
) -> list[ClipResult]:
    """Cut the videos; those that another run is cutting are waited for, at the end."""
    results: list[ClipResult] = []
    processes = min(settings.processes or default_processes(), max(len(videos), 1))
    total = sum(len(video.clips) for video in videos)
    with workers(processes) as run, progress_bar(None, what="cut", unit="clip", total=total, show=progress) as bar:
        busy = []
        for video, found in zip(videos, run(cutter.cut, videos), strict=True):
            if found is None:
                busy.append(video)
            else:
                results += found
                bar.update(len(found))
        if busy:
            logger.warning("%s: waiting for another run that is cutting %d of the videos", cutter.output, len(busy))
            for found in run(replace(cutter, wait=True).cut, busy):
                results += found or []
                bar.update(len(found or []))
    return results


@contextmanager
def _one_line(output: Path) -> Iterator[None]:
    """Turn what a disk refuses into one line."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room" if full else "see to it"
        raise ValueError(
            f"output={output}: {error.filename or 'a file'}: {error.strerror}; the clips cut so far are kept: "
            f"{remedy}, and type the same command again"
        ) from error


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
