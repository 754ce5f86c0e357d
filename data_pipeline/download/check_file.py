"""Look at a downloaded file: is it whole, is it a video, how long is it."""

from __future__ import annotations

from pathlib import Path

from cami2v.video import VideoInfo, probe
from data_pipeline.download.status import Status

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


class BadFile(Exception):
    """A file that is not what was asked for; the message is one line."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_file(path: Path) -> VideoInfo:
    """Return what the video says about itself; raises BadFile for one that is cut off or is none."""
    if not mp4_is_whole(path):
        raise BadFile(Status.NETWORK, f"{path.stat().st_size} bytes came, and the file's own index says more")
    try:
        return probe(path)
    except ValueError as error:
        raise BadFile(Status.NOT_A_VIDEO, str(error).removeprefix(f"{path}: ")) from error


def too_short(info: VideoInfo, needed_microseconds: int) -> str | None:
    """Say in one line that a video ends before its last annotated camera; None where it does not."""
    end = float(info.timestamps_seconds[-1]) + 1 / info.frames_per_second
    if needed_microseconds / 1e6 <= end:
        return None
    return f"ends at {end:.2f} s, the last camera is at {needed_microseconds / 1e6:.2f} s"


def mp4_is_whole(path: Path) -> bool:
    """Walk the top boxes of an MP4 or QuickTime file (ISO 14496-12); False where one reaches past the file's end.

    FFmpeg reads a cut file without complaint and shows fewer frames. Files of other kinds pass.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position + 8 <= size:
            file.seek(position)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if position == 0 and kind not in _BOXES:
                return True
            if length == 1:
                length = int.from_bytes(header[8:16], "big")
            if length == 0:
                return True
            if length < 8:
                return False
            position += length
    return position == size or size == 0
