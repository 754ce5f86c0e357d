"""Writing of video files (`cami2v.video` reads them)."""

from __future__ import annotations

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import SupportsFloat

import av
import numpy as np
from jaxtyping import UInt8
from PIL import Image

Frame = UInt8[np.ndarray, "height width 3"]


def encode_mp4(
    frames: Iterable[Frame],
    *,
    fps: SupportsFloat,
    crf: int = 16,
    gop: int = 8,
    b_frames: int = 0,
    fast_decode: bool = False,
    full_chroma: bool = False,
    comment: str | None = None,
) -> bytes:
    """Encode RGB frames as H.264 (yuv420p, a key frame every `gop` frames).

    `b_frames` frames between two others refer to those two, and nothing refers to them: who reads some frames of a
    clip need not decode them. `full_chroma` writes yuv444p: any frame size, colour as sharp as brightness; fewer
    players show it. `comment` is stored in the file's tag of that name (`read_comment` in cami2v.video).

    One encoder thread: the bytes then depend on the input only, not on the machine's core count. Raises ValueError
    for no frames, an odd height or width under yuv420p (it halves both) or frames of different sizes.
    """
    encoder = Mp4Encoder(
        fps=fps, crf=crf, gop=gop, b_frames=b_frames, fast_decode=fast_decode, full_chroma=full_chroma, comment=comment
    )
    for frame in frames:
        encoder.add(frame)
    return encoder.finish()


class Mp4Encoder:
    """`encode_mp4` for frames that come one by one."""

    def __init__(
        self,
        *,
        fps: SupportsFloat,
        crf: int,
        gop: int,
        fast_decode: bool,
        full_chroma: bool,
        b_frames: int = 0,
        comment: str | None = None,
    ) -> None:
        self._comment = comment
        self._options = {"crf": str(crf), "g": str(gop), "keyint_min": str(gop), "sc_threshold": "0"}
        self._options["bf"] = str(b_frames)
        # x264's macroblock tree reads uninitialised memory for widths that 8 does not divide: other bytes at every run.
        # B-frames in a fixed rhythm, none of them a reference.
        self._options["x264-params"] = "mbtree=0" + (":b-adapt=0:b-pyramid=none" if b_frames else "")
        if fast_decode:
            self._options["tune"] = "fastdecode"
        self._rate = _frame_rate(fps)
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
        if self._comment is not None:
            self._container.metadata["comment"] = self._comment
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=self._options)
        self._stream.height, self._stream.width = size[0], size[1]
        self._stream.pix_fmt = "yuv444p" if self._full_chroma else "yuv420p"
        self._stream.codec_context.thread_count = 1


def encode_jpeg_mp4(frames: Iterable[Frame], *, fps: SupportsFloat, quality: int) -> bytes:
    """Encode RGB frames as JPEG pictures (4:2:0, any size) in an mp4 file: Motion JPEG.

    Raises ValueError for no frames.
    """
    buffer, rate = io.BytesIO(), _frame_rate(fps)
    count = 0
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.pix_fmt = "yuvj420p"
        for count, frame in enumerate(frames, start=1):
            if count == 1:
                stream.height, stream.width = frame.shape[:2]
            picture = io.BytesIO()
            Image.fromarray(frame).save(picture, "JPEG", quality=quality, subsampling="4:2:0", optimize=True)
            packet = av.Packet(picture.getvalue())
            packet.stream, packet.time_base, packet.is_keyframe = stream, 1 / rate, True
            packet.pts = packet.dts = count - 1
            packet.duration = 1
            container.mux(packet)
        if not count:
            raise ValueError("no frames to write; a video needs at least one")
    return buffer.getvalue()


def write_mp4(
    path: Path | str,
    frames: Iterable[Frame],
    fps: SupportsFloat,
    *,
    crf: int = 16,
    gop: int = 8,
    fast_decode: bool = False,
    full_chroma: bool = False,
    comment: str | None = None,
) -> None:
    """Write RGB frames as an H.264 mp4 (see `encode_mp4`); the file appears complete or not at all."""
    data = encode_mp4(
        frames, fps=fps, crf=crf, gop=gop, fast_decode=fast_decode, full_chroma=full_chroma, comment=comment
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.replace(path)


def _frame_rate(fps: SupportsFloat) -> Fraction:
    return Fraction(float(fps)).limit_denominator(1001)


def _check_encodable(height: int, width: int) -> None:
    if height % 2 or width % 2:
        raise ValueError(
            f"frames of {height}x{width} (height x width) cannot be written as yuv420p mp4: "
            "both must be even; crop or resize by one pixel"
        )
