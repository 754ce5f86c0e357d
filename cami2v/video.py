"""Reading of video files; with `video_encoding`, the one place that talks to decord and FFmpeg (through PyAV)."""

from __future__ import annotations

import bisect
import io
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, UInt8
from PIL import Image

from cami2v.video_encoding import Frame, Mp4Encoder, encode_jpeg_mp4, encode_mp4, write_mp4

__all__ = [
    "Frame",
    "Frames",
    "Mp4Encoder",
    "VideoInfo",
    "encode_jpeg_mp4",
    "encode_mp4",
    "probe",
    "read_chunks",
    "read_comment",
    "read_forward",
    "read_frames",
    "write_mp4",
]

logger = logging.getLogger(__name__)

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
            aspect = float(stream.sample_aspect_ratio or 1)
    except (av.FFmpegError, StopIteration) as error:
        raise ValueError(f"{name}: not a readable video ({_reason(error)})") from error
    rotation = -first.rotation % 360
    turned = rotation in (90, 270)
    return VideoInfo(
        frames=len(times),
        height=first.width if turned else first.height,
        width=first.height if turned else first.width,
        frames_per_second=float(rate) if rate else float(len(times) / max(times[-1], 1e-9)),
        rotation_degrees=rotation,
        pixel_aspect=1 / aspect if turned else aspect,
        timestamps_seconds=np.asarray(times, dtype=np.float64),
    )


def read_comment(video: Path | str) -> str | None:
    """Return what a video file says in its comment tag. Raises ValueError for a missing or unreadable file."""
    name = _existing(video)
    try:
        with av.open(str(video), "r") as container:
            return container.metadata.get("comment")
    except av.FFmpegError as error:
        raise ValueError(f"{name}: not a readable video ({_reason(error)})") from error


def read_frames(video: Path | str | bytes, indices: Sequence[int] | None = None) -> Frames:
    """Decode the frames with the given numbers (display order, repeats allowed), or all of them.

    Raises ValueError for a missing or unreadable file and for numbers the video does not have.
    """
    chunks = list(read_chunks(video, indices))
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def read_chunks(video: Path | str | bytes, indices: Sequence[int] | None = None) -> Iterator[Frames]:
    """Decode like `read_frames`, a bounded number of frames at a time."""
    name = _existing(video)
    if isinstance(video, bytes):
        yield from _chunks_in_memory(video, indices, name)
        return
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


def _chunks_in_memory(video: bytes, indices: Sequence[int] | None, name: str) -> Iterator[Frames]:
    """Decode only what the frames asked for depend on: all packets are at hand."""
    try:
        with av.open(io.BytesIO(video), "r") as container:
            stream = _video_stream(container, name)
            stream.codec_context.thread_count = 1
            packets = {
                time: packet for packet in container.demux(stream) if (time := packet.pts) is not None and packet.size
            }
            times = sorted(time for time, packet in packets.items() if not packet.is_discard)
            if not times:
                raise ValueError(f"{name}: the video stream has no frames; the file is empty or was cut off")
            wanted = range(len(times)) if indices is None else _checked_indices(indices, len(times), name)
            for start in range(0, len(wanted), _CHUNK_FRAMES):
                chunk = [times[index] for index in wanted[start : start + _CHUNK_FRAMES]]
                decoded = _decode_packets(stream, packets, set(chunk))
                if missing := [time for time in chunk if time not in decoded]:
                    number = times.index(missing[0])
                    raise ValueError(f"{name}: frame {number} of {len(times)} does not decode; it is damaged")
                yield np.stack([decoded[time] for time in chunk])
    except av.FFmpegError as error:
        raise ValueError(f"{name}: not a readable video ({_reason(error)})") from error


def _decode_packets(stream: av.VideoStream, packets: Mapping[int, av.Packet], wanted: set[int]) -> dict[int, Frame]:
    """Return the frames with these presentation times; `packets` are in the order of decoding."""
    if stream.codec_context.name == "mjpeg":
        # Pillow's libjpeg-turbo takes half the time of FFmpeg's decoder.
        return {time: _jpeg(bytes(packets[time])) for time in wanted}
    context, reformatter = stream.codec_context, VideoReformatter()
    decoded: dict[int, Frame] = {}
    for packet in [*_needed(packets, wanted), None]:
        # Frames that no other one refers to are decoded only if they are asked for.
        context.skip_frame = "DEFAULT" if packet is None or packet.pts in wanted else "NONREF"
        for frame in context.decode(packet):
            if frame.pts in wanted:
                rgb = reformatter.reformat(frame, format="rgb24").to_ndarray()
                # The file's rotation is counter-clockwise in FFmpeg's sign, like np.rot90's.
                decoded[frame.pts] = np.rot90(rgb, frame.rotation // 90)
    context.flush_buffers()
    return decoded


def _needed(packets: Mapping[int, av.Packet], wanted: set[int]) -> list[av.Packet]:
    """Choose the packets to decode: from each wanted frame back to a key frame that is shown no later than it."""
    times = list(packets)
    keys: list[int] = []
    needed: dict[int, av.Packet] = {}
    for position, (time, packet) in enumerate(packets.items()):
        if packet.is_keyframe:
            keys.append(position)
        if time in wanted:
            first = next((key for key in reversed(keys) if times[key] <= time), 0)
            needed |= {each: packets[each] for each in times[first : position + 1]}
    return [packet for time, packet in packets.items() if time in needed]


def _jpeg(data: bytes) -> Frame:
    try:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"not a readable JPEG picture ({error})") from error


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
    # PyAV 19 has a number type of its own here.
    return Fraction(stream.time_base.numerator, stream.time_base.denominator)


def _checked_indices(indices: Sequence[int], count: int, name: str) -> list[int]:
    if not indices:
        raise ValueError(f"{name}: no frames asked for; give at least one frame number")
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise ValueError(f"{name}: frame {wrong[0]} asked for, but the video has frames 0 to {count - 1}")
    return [int(index) for index in indices]


def _reason(error: Exception) -> str:
    # decord quotes the whole input, binary included, and appends a C++ stack trace.
    first_line = str(error).split("\n", 1)[0]
    return first_line[:200] if first_line.isprintable() else type(error).__name__
