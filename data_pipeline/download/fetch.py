"""Fetch one source video through yt-dlp: attempts, continuing, checking, and what to call the outcome."""

from __future__ import annotations

import contextlib
import io
import optparse
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import yt_dlp
from yt_dlp.utils import DownloadCancelled, YoutubeDLError

from cami2v.video import VideoInfo
from data_pipeline.camera_lists import SourceVideo, video_files
from data_pipeline.download.check_file import BadFile, check_file, too_short
from data_pipeline.download.classify import classify
from data_pipeline.download.status import PERMANENT, THERE, Result, Status
from data_pipeline.realestate10k.layout import VIDEO_SUFFIXES

PARTIAL = ".partial"
"""Folder of unfinished downloads below the output folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """What the fetching of every video shares."""

    output: Path
    options: Mapping[str, Any]
    """Of `yt_dlp.YoutubeDL`."""
    cookies: Path | None
    attempts: int
    backoff_seconds: float
    stop: Event
    """When it is set, transfers end at their next block."""

    def fetch(self, video: SourceVideo) -> Result | None:
        """Try until the video is there, is known to be gone, or attempts run out; None where `stop` came first."""
        status, message = Status.FAILED, ""
        for attempt in range(1, self.attempts + 1):
            if self.stop.is_set():
                return None
            try:
                path = self._download(video)
                info = check_file(path)
                status, message, final = self._accept(video, path, info)
                return result_of(video, status, message, attempt, final, info)
            except DownloadCancelled:
                return None
            except BadFile as error:
                # What is there cannot be continued.
                shutil.rmtree(self._partial(video), ignore_errors=True)
                status, message = error.status, str(error)
            except (YoutubeDLError, OSError) as error:
                status, message = classify(error)
            if status in PERMANENT:
                shutil.rmtree(self._partial(video), ignore_errors=True)
                return result_of(video, status, message, attempt, None, None)
            if attempt < self.attempts:
                self.stop.wait(self.backoff_seconds * 2 ** (attempt - 1) * random.uniform(0.75, 1.25))
        return result_of(video, status, message, self.attempts, None, None)

    def check_present(self, video: SourceVideo) -> Result | None:
        """Return the result for a file that somebody else put into the output folder; None where there is none."""
        for path in video_files(self.output, video.source_id):
            with contextlib.suppress(BadFile):
                info = check_file(path)
                short = too_short(info, video.last_microseconds())
                return result_of(video, Status.TOO_SHORT if short else Status.OK, short or "", 0, path, info)
        return None

    def _download(self, video: SourceVideo) -> Path:
        folder = self._partial(video)
        folder.mkdir(parents=True, exist_ok=True)
        # A format's name in the file's name: no other format is ever appended to what is there.
        options = dict(self.options) | {
            "outtmpl": {"default": str(folder).replace("%", "%%") + "/%(format_id)s.%(ext)s"},
            "progress_hooks": [self._end_if_stopped],
            "logger": _Silent(),
            "quiet": True,
            "noprogress": True,
        }
        if self.cookies is not None:
            # yt-dlp writes the file back when it ends; several would do so at once.
            options["cookiefile"] = str(shutil.copy(self.cookies, folder / "cookies.txt"))
        with yt_dlp.YoutubeDL(options) as loader:
            info = loader.extract_info(video.address, download=True)
        files = (info or {}).get("requested_downloads") or []
        if len(files) != 1:
            raise BadFile(Status.NOT_A_VIDEO, "the address does not lead to one video")
        path = Path(files[0]["filepath"])
        if not path.is_file() or not path.stat().st_size:
            raise BadFile(Status.NETWORK, "the server sent nothing")
        return path

    def _accept(self, video: SourceVideo, path: Path, info: VideoInfo) -> tuple[Status, str, Path | None]:
        if path.suffix not in VIDEO_SUFFIXES:
            kinds = " ".join(VIDEO_SUFFIXES)
            shutil.rmtree(self._partial(video), ignore_errors=True)
            return Status.FAILED, f"came as {path.suffix}; cami2v reads {kinds}", None
        final = self.output / f"{video.source_id}{path.suffix}"
        path.replace(final)
        shutil.rmtree(self._partial(video), ignore_errors=True)
        short = too_short(info, video.last_microseconds())
        return (Status.TOO_SHORT, short, final) if short else (Status.OK, "", final)

    def _partial(self, video: SourceVideo) -> Path:
        return self.output / PARTIAL / video.source_id

    def _end_if_stopped(self, progress: object) -> None:
        if self.stop.is_set():
            raise DownloadCancelled


def ytdlp_options(arguments: list[str]) -> dict[str, Any]:
    """Turn flags of the yt-dlp command into options of its class. Raises ValueError for flags it does not know."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = yt_dlp.parse_options(["--ignore-config", *arguments])
    except (SystemExit, optparse.OptParseError) as error:
        text = (said.getvalue().strip() or str(error)).splitlines()[-1]
        raise ValueError(f"download.ytdlp_arguments: yt-dlp does not take them ({text}); see yt-dlp --help") from error
    if parsed.urls:
        raise ValueError(
            f"download.ytdlp_arguments: {parsed.urls[0]!r} is not a flag; one word per item: ['--flag', value]"
        )
    return dict(parsed.ydl_opts)


def result_of(
    video: SourceVideo, status: Status, message: str, attempts: int, path: Path | None, info: VideoInfo | None
) -> Result:
    """Write down what became of a video."""
    there = path is not None and info is not None and status in THERE
    return Result(
        source_id=video.source_id,
        address=video.address,
        status=status,
        message=message,
        attempts=attempts,
        clips=len(video.clips),
        file=path.name if path is not None and there else None,
        bytes=path.stat().st_size if path is not None and there else None,
        height=info.height if info is not None and there else None,
        width=info.width if info is not None and there else None,
        seconds=round(float(info.timestamps_seconds[-1]), 6) if info is not None and there else None,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


class _Silent:
    """Takes what yt-dlp would print; errors come as exceptions as well."""

    def debug(self, message: str) -> None:
        """Drop it."""

    def info(self, message: str) -> None:
        """Drop it."""

    def warning(self, message: str) -> None:
        """Drop it."""

    def error(self, message: str) -> None:
        """Drop it."""
