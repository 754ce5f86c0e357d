"""Fetch the source videos of a camera list, several at a time, and say honestly what came of it."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from data_pipeline.camera_lists import CameraList, SourceVideo, read_camera_list
from data_pipeline.download.fetch import PARTIAL, Fetcher, ytdlp_options
from data_pipeline.download.status import FILE_NAME, MEANING, PERMANENT, THERE, Result, Status, StatusFile, count
from data_pipeline.parallel import progress_bar

_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadSettings:
    """How source videos are fetched."""

    resolution: int
    parallel: int
    rate_limit: str | None
    pause_seconds: tuple[float, float]
    attempts: int
    backoff_seconds: float
    timeout_seconds: float
    cookies: str | None
    retry: tuple[Status, ...]
    stop_after_blocked: int
    ytdlp_arguments: tuple[str, ...]

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key in ("resolution", "parallel", "attempts", "stop_after_blocked"):
            if getattr(self, key) < 1:
                raise ValueError(f"download.{key}={getattr(self, key)}: must be at least 1")
        if self.timeout_seconds <= 0 or self.backoff_seconds < 0:
            raise ValueError(
                f"download.timeout_seconds={self.timeout_seconds}, download.backoff_seconds={self.backoff_seconds}: "
                "a time to wait must be positive, and a back-off not negative"
            )
        if not 0 <= self.pause_seconds[0] <= self.pause_seconds[1]:
            raise ValueError(f"download.pause_seconds={list(self.pause_seconds)}: expected [shortest, longest]")
        if self.rate_limit is not None and not self.bytes_per_second():
            raise ValueError(f"download.rate_limit={self.rate_limit}: expected bytes per second like 500K or 4.5M")
        if self.cookies is not None and not Path(self.cookies).expanduser().is_file():
            raise ValueError(f"download.cookies={self.cookies}: no such file; expected a Netscape cookies.txt")

    def bytes_per_second(self) -> float:
        """Return the rate limit of all transfers together; 0 for none or for one that cannot be read."""
        match = _RATE.fullmatch(self.rate_limit or "")
        return float(match[1]) * 1024 ** " KMG".index(match[2] or " ") if match else 0.0

    def arguments(self) -> list[str]:
        """Return these settings as flags of yt-dlp."""
        flags = [
            *("--format", "bestvideo/best"),
            *("--format-sort", f"res:{self.resolution},vcodec:h264,ext:mp4:m4a"),
            *("--socket-timeout", str(self.timeout_seconds)),
            # Attempts are counted here, and every one continues the last; fragments of a stream are yt-dlp's.
            *("--retries", "0", "--extractor-retries", "0", "--fixup", "never", "--no-playlist", "--no-mtime"),
            *("--abort-on-error", "--abort-on-unavailable-fragments"),
        ]
        if self.pause_seconds[1] > 0:
            flags += ["--sleep-interval", str(self.pause_seconds[0])]
            flags += ["--max-sleep-interval", str(self.pause_seconds[1])]
        if self.rate_limit is not None:
            flags += ["--limit-rate", str(int(self.bytes_per_second() / self.parallel))]
        return [*flags, *self.ytdlp_arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadReport:
    """Where every video of the list stands."""

    listed: CameraList
    results: dict[str, Result]
    """Of the videos of this list, whenever they were fetched."""
    tried: int
    """Videos asked for by this run."""
    stopped: str | None
    """Why the run ended early."""

    @property
    def there(self) -> int:
        """Number of videos that can be used."""
        return sum(result.status in THERE for result in self.results.values())

    def lines(self) -> list[str]:
        """Say it in a few lines for a person."""
        videos, results = self.listed.videos, self.results
        clips = sum(len(v.clips) for v in videos if v.source_id in results and results[v.source_id].status in THERE)
        lines = [
            f"{len(videos)} videos in the list, {self.there} there ({_share(self.there, len(videos))}), "
            f"{self.tried} tried now",
            f"{self.listed.clips} clips in the list, {clips} of videos that are there "
            f"({_share(clips, self.listed.clips)})",
        ]
        for status, members in count(results.values()).items():
            again = "" if status in PERMANENT else ", tried again by the next run"
            lines.append(f"  {status}: {len(members)} ({MEANING[status]}{again})")
            if status in (Status.FAILED, Status.BLOCKED, Status.NETWORK):
                lines.append(f"    e.g. {members[0].source_id}: {members[0].message}")
        if missing := len(videos) - len(results):
            lines.append(f"  not tried: {missing}")
        if self.listed.malformed:
            lines.append(
                f"  camera files without an address: {len(self.listed.malformed)}, "
                f"e.g. {next(iter(self.listed.malformed.values()))}"
            )
        return [*lines, self.stopped] if self.stopped else lines


def download(cameras: Path, output: Path, settings: DownloadSettings, *, progress: bool) -> DownloadReport:
    """Fetch what is not there yet and not known to be gone.

    Every result is a line of `<output>/download_status.jsonl` as soon as it is known. A video appears in `output` whole
    and checked, or not at all; unfinished ones are continued by the next run. Raises ValueError for a folder that is no
    camera list, settings out of range, a second run at the same `output`, or a full disk.
    """
    settings.validate()
    options = ytdlp_options(settings.arguments())
    listed = read_camera_list(cameras)
    with _only_run(output):
        statuses = StatusFile(output / FILE_NAME)
        fetcher = Fetcher(
            output=output,
            options=options,
            cookies=Path(settings.cookies).expanduser() if settings.cookies else None,
            attempts=settings.attempts,
            backoff_seconds=settings.backoff_seconds,
            stop=Event(),
        )
        todo = [video for video in listed.videos if _needs_work(video, statuses, output, settings.retry)]
        tried, stopped = _fetch_all(todo, fetcher, statuses, settings, len(listed.videos), progress)
    asked = {video.source_id for video in listed.videos}
    results = {key: result for key, result in statuses.results.items() if key in asked}
    return DownloadReport(listed=listed, results=results, tried=tried, stopped=stopped)


def _needs_work(video: SourceVideo, statuses: StatusFile, output: Path, retry: Sequence[Status]) -> bool:
    result = statuses.results.get(video.source_id)
    if result is None or result.status in retry:
        return True
    if result.status in THERE:
        path = output / str(result.file)
        return not path.is_file() or path.stat().st_size != result.bytes
    return result.status not in PERMANENT


def _fetch_all(
    todo: list[SourceVideo],
    fetcher: Fetcher,
    statuses: StatusFile,
    settings: DownloadSettings,
    total: int,
    progress: bool,
) -> tuple[int, str | None]:
    """Fetch with a few in flight, so that a stop loses little. Returns how many were tried, and why it ended early."""
    tried = blocked = 0
    waiting: set[Future[Result | None]] = set()
    remaining = iter(todo)
    bar = progress_bar(None, what="download", unit="video", total=total, show=progress)
    pool = ThreadPoolExecutor(settings.parallel)
    try:
        bar.update(total - len(todo))
        while blocked < settings.stop_after_blocked:
            for video in remaining:
                waiting.add(pool.submit(_fetch_one, fetcher, video, statuses, settings.retry))
                if len(waiting) >= settings.parallel:
                    break
            if not waiting:
                return tried, None
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if (result := future.result()) is not None:
                    tried += 1
                    blocked = blocked + 1 if result.status is Status.BLOCKED else 0
                bar.update()
            bar.set_postfix({status: len(members) for status, members in count(statuses.results.values()).items()})
        return tried, (
            f"stopped: {blocked} videos in a row were refused (download.stop_after_blocked); wait some hours, set "
            "download.cookies or go slower, then run the same command again"
        )
    finally:
        fetcher.stop.set()
        pool.shutdown(cancel_futures=True)
        bar.close()


def _fetch_one(fetcher: Fetcher, video: SourceVideo, statuses: StatusFile, retry: Sequence[Status]) -> Result | None:
    before = statuses.results.get(video.source_id)
    found = None if before is not None and before.status in retry else fetcher.check_present(video)
    result = found or fetcher.fetch(video)
    if result is not None:
        statuses.add(result)
    return result


@contextmanager
def _only_run(output: Path) -> Iterator[None]:
    (output / PARTIAL).mkdir(parents=True, exist_ok=True)
    with (output / PARTIAL / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"output={output}: another download writes there; wait for it or choose another folder"
            ) from error
        yield


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "0 %"
