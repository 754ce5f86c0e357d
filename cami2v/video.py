"""Reading and writing of video files: the one place that talks to decord and FFmpeg (through PyAV)."""

from __future__ import annotations

import bisect
import io
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import SupportsFloat

import av
import numpy as np
from jaxtyping import Float64, UInt8

logger = logging.getLogger(__name__)

Frame = UInt8[np.ndarray, "height width 3"]
Frames = UInt8[np.ndarray, "frames height width 3"]

_CHUNK_FRAMES = 32  # bounds the memory of a long clip: 32 frames of 720p are 88 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a video file says about itself; sizes are those of the frames `read_frames` returns (rotation applied)."""

    frames: int
    height: int
    width: int
    frames_per_second: float
    rotation_degrees: int
    """Clockwise turn that the file asks of a player; 0, 90, 180 or 270."""
    pixel_aspect: float
    """Width over height of a pixel by the file's own flag; 1 where it says nothing."""
    timestamps_seconds: Float64[np.ndarray, " frames"]
    """Presentation times in display order, relative to the start of the file."""


def probe(video: Path | str | bytes) -> VideoInfo:
    """Read size, rate and frame times of a video without decoding more than its first frame.

    Raises ValueError for a missing, empty or unreadable file.
    """
    name = _existing(video)
    try:
        with av.open(_source(video), "r") as container:
            stream = _video_stream(container, name)
            packets = [p for p in container.demux(stream) if p.pts is not None and not p.is_discard]
            if not packets:
                raise ValueError(f"{name}: the video stream has no frames; the file is empty or was cut off")
            start = Fraction(container.start_time or 0, av.time_base)
            times = sorted(float((packet.pts or 0) * _time_base(stream) - start) for packet in packets)
            container.seek(0)
            first = next(container.decode(stream))
            rate = stream.average_rate or stream.guessed_rate
    except (av.FFmpegError, StopIteration) as error:
        raise ValueError(f"{name}: not a readable video ({_reason(error)})") from error
    rotation = -first.rotation % 360
    turned = rotation in (90, 270)
    aspect = float(stream.sample_aspect_ratio or 1)
    return VideoInfo(
        frames=len(times),
        height=first.width if turned else first.height,
        width=first.height if turned else first.width,
        frames_per_second=float(rate) if rate else float(len(times) / max(times[-1], 1e-9)),
        rotation_degrees=rotation,
        pixel_aspect=1 / aspect if turned else aspect,
        timestamps_seconds=np.asarray(times, dtype=np.float64),
    )


def read_frames(video: Path | str | bytes, indices: Sequence[int] | None = None) -> Frames:
    """Decode the frames with the given numbers (display order, repeats allowed), or all of them.

    Raises ValueError for a missing or unreadable file and for numbers the video does not have.
    """
    return np.concatenate(list(read_chunks(video, indices)))


def read_chunks(video: Path | str | bytes, indices: Sequence[int] | None = None) -> Iterator[Frames]:
    """Decode like `read_frames`, a bounded number of frames at a time."""
    name = _existing(video)
    try:
        chunks = _decord_chunks(video, indices, name)
        first = next(chunks)
    except _DecordFailed as failure:
        logger.warning("%s: decord cannot read it (%s); reading with PyAV", name, failure)
        yield from _pyav_chunks(video, indices, name)
        return
    yield first
    try:
        yield from chunks
    except _DecordFailed as failure:
        raise ValueError(f"{name}: decoding failed midway ({failure}); the file is damaged") from failure


def read_forward(video: Path | str, indices: Iterable[int]) -> Iterator[tuple[int, Frame]]:
    """Decode the frames with the given numbers once each, in display order, in one pass that jumps over long gaps.

    Frames are told by their presentation time, as `probe` numbers them. Raises ValueError for an unreadable file, and
    for a frame that does not decode: it is never replaced by a neighbour.
    """
    name = _existing(video)
    try:
        with av.open(str(video), "r") as container:
            stream = _video_stream(container, name)
            packets = [
                (p.pts, p.is_keyframe) for p in container.demux(stream) if p.pts is not None and not p.is_discard
            ]
            times = sorted(pts for pts, _ in packets)
            wanted = _checked_indices(sorted(set(indices)), len(times), name)
            numbers = {times[index]: index for index in wanted}
            keys = sorted(pts for pts, key in packets if key)
            yield from _forward(container, stream, numbers, keys, name)
    except av.FFmpegError as error:
        raise ValueError(f"{name}: not a readable video ({_reason(error)})") from error


def _forward(
    container: av.container.InputContainer, stream: av.VideoStream, numbers: dict[int, int], keys: list[int], name: str
) -> Iterator[tuple[int, Frame]]:
    """Yield the frames whose presentation times `numbers` has; `keys` are the times of the key frames."""
    waiting = deque(sorted(numbers))
    for seekable in (True, False):  # some containers find their key frames badly: read the rest from the start
        missed = None
        while waiting and missed != waiting[0]:
            missed = waiting[0]
            key = _last_at_most(keys, waiting[0]) if seekable else None
            container.seek(0) if key is None else container.seek(key, stream=stream)
            yield from _run(container, stream, numbers, keys if seekable else [], waiting)
    if waiting:
        raise ValueError(f"{name}: frame {numbers[waiting[0]]} does not decode; the file is damaged")


def _run(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    numbers: dict[int, int],
    keys: list[int],
    waiting: deque[int],
) -> Iterator[tuple[int, Frame]]:
    """Decode on and take what is waited for, until that is missed or a jump saves much."""
    for frame in container.decode(stream):
        if frame.pts is None or frame.pts < waiting[0]:
            continue
        if frame.pts > waiting[0]:
            return
        number = numbers[waiting.popleft()]
        yield number, np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
        if not waiting:
            return
        key = _last_at_most(keys, waiting[0])
        if numbers[waiting[0]] - number > _CHUNK_FRAMES and key is not None and key > frame.pts:
            return


def _last_at_most(sorted_times: list[int], time: int) -> int | None:
    position = bisect.bisect_right(sorted_times, time)
    return sorted_times[position - 1] if position else None


def encode_mp4(
    frames: Iterable[Frame],
    *,
    fps: SupportsFloat,
    crf: int = 16,
    gop: int = 8,
    fast_decode: bool = False,
    full_chroma: bool = False,
) -> bytes:
    """Encode RGB frames as H.264 (yuv420p, no B-frames, a key frame every `gop` frames).

    `full_chroma` writes yuv444p: any frame size, colour as sharp as brightness; fewer players show it.

    One encoder thread: the bytes then depend on the input only, not on the machine's core count. Raises ValueError
    for no frames, an odd height or width under yuv420p (it halves both) or frames of different sizes.
    """
    encoder = Mp4Encoder(fps=fps, crf=crf, gop=gop, fast_decode=fast_decode, full_chroma=full_chroma)
    for frame in frames:
        encoder.add(frame)
    return encoder.finish()


class Mp4Encoder:
    """`encode_mp4` for frames that come one by one."""

    def __init__(self, *, fps: SupportsFloat, crf: int, gop: int, fast_decode: bool, full_chroma: bool) -> None:
        self._options = {"crf": str(crf), "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0", "bf": "0"}
        # x264's macroblock tree reads uninitialised memory for widths that 8 does not divide: other bytes at every run.
        self._options["x264-params"] = "mbtree=0"
        if fast_decode:
            self._options["tune"] = "fastdecode"
        self._rate = Fraction(float(fps)).limit_denominator(1001)
        self._full_chroma = full_chroma
        self._buffer = io.BytesIO()
        self._size: tuple[int, ...] | None = None
        self._added = 0

    def add(self, frame: Frame) -> None:
        """Encode a frame; raises ValueError for an odd size under yuv420p or another size than before."""
        if self._size is None:
            self._open(frame.shape)
        elif frame.shape != self._size:
            raise ValueError(f"frame {self._added} is {frame.shape[:2]}, earlier ones {self._size[:2]}: give one size")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(picture))
        self._added += 1

    def finish(self) -> bytes:
        """Return the file; raises ValueError where no frame was added."""
        if self._size is None:
            raise ValueError("no frames to write; a video needs at least one")
        self._container.mux(self._stream.encode())
        self._container.close()
        return self._buffer.getvalue()

    def _open(self, size: tuple[int, ...]) -> None:
        if not self._full_chroma:
            _check_encodable(*size[:2])
        self._size = size
        self._container = av.open(self._buffer, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        self._stream.height, self._stream.width = size[0], size[1]
        self._stream.pix_fmt = "yuv444p" if self._full_chroma else "yuv420p"
        self._stream.codec_context.thread_count = 1


def write_mp4(
    path: Path | str,
    frames: Iterable[Frame],
    fps: SupportsFloat,
    *,
    crf: int = 16,
    gop: int = 8,
    fast_decode: bool = False,
    full_chroma: bool = False,
) -> None:
    """Write RGB frames as an H.264 mp4 (see `encode_mp4`); the file appears complete or not at all."""
    data = encode_mp4(frames, fps=fps, crf=crf, gop=gop, fast_decode=fast_decode, full_chroma=full_chroma)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


class _DecordFailed(Exception):
    """decord is missing or gave up; the message says why."""


def _decord_chunks(video: Path | str | bytes, indices: Sequence[int] | None, name: str) -> Iterator[Frames]:
    try:
        # Imported here: there is no decord wheel for some platforms, and PyAV then reads everything.
        import decord
        from decord import DECORDError
    except ImportError as error:
        raise _DecordFailed(f"decord cannot be imported: {error}") from error
    try:
        reader = decord.VideoReader(_source(video), ctx=decord.cpu(0), num_threads=1)
        count = len(reader)
    except (DECORDError, RuntimeError) as error:
        raise _DecordFailed(_reason(error)) from error
    wanted = range(count) if indices is None else _checked_indices(indices, count, name)
    for start in range(0, len(wanted), _CHUNK_FRAMES):
        try:
            yield reader.get_batch(list(wanted[start : start + _CHUNK_FRAMES])).asnumpy()
        except (DECORDError, RuntimeError) as error:
            raise _DecordFailed(_reason(error)) from error


def _pyav_chunks(video: Path | str | bytes, indices: Sequence[int] | None, name: str) -> Iterator[Frames]:
    count = probe(video).frames
    wanted = list(range(count)) if indices is None else _checked_indices(indices, count, name)
    needed, last = set(wanted), max(wanted)
    decoded: dict[int, np.ndarray] = {}
    try:
        with av.open(_source(video), "r") as container:
            for number, frame in enumerate(container.decode(_video_stream(container, name))):
                if number in needed:
                    # The file's rotation is counter-clockwise in FFmpeg's sign, like np.rot90's.
                    decoded[number] = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
                if number == last:
                    break
    except av.FFmpegError as error:
        raise ValueError(f"{name}: not a readable video ({_reason(error)})") from error
    if missing := sorted(needed - decoded.keys()):
        raise ValueError(f"{name}: {len(missing)} of {count} frames do not decode (first {missing[0]}); it is damaged")
    for start in range(0, len(wanted), _CHUNK_FRAMES):
        yield np.stack([decoded[number] for number in wanted[start : start + _CHUNK_FRAMES]])


def _existing(video: Path | str | bytes) -> str:
    if isinstance(video, bytes):
        return f"video of {len(video)} bytes in memory"
    if not Path(video).is_file():
        raise ValueError(f"{video}: no such video file")
    return str(video)


def _source(video: Path | str | bytes) -> io.BytesIO | str:
    return io.BytesIO(video) if isinstance(video, bytes) else str(video)


def _video_stream(container: av.container.InputContainer, name: str) -> av.VideoStream:
    if not container.streams.video:
        raise ValueError(f"{name}: has no video stream")
    return container.streams.video[0]


def _time_base(stream: av.VideoStream) -> Fraction:
    assert stream.time_base is not None, "FFmpeg sets it for every demuxed stream"
    return stream.time_base


def _checked_indices(indices: Sequence[int], count: int, name: str) -> list[int]:
    if not indices:
        raise ValueError(f"{name}: no frames asked for; give at least one frame number")
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ValueError(f"{name}: frame {wrong[0]} asked for, but the video has frames 0 to {count - 1}")
    return [int(index) for index in indices]


def _check_encodable(height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise ValueError(
            f"frames of {height}x{width} (height x width) cannot be written as yuv420p mp4: "
            "both must be even; crop or resize by one pixel"
        )


def _reason(error: Exception) -> str:
    # decord quotes the whole input, binary included, and appends a C++ stack trace.
    first_line = str(error).split("\n", 1)[0]
    return first_line[:200] if first_line.isprintable() else type(error).__name__
