"""Videos whose frames carry their number: ten blocks, white for 1 and black for 0, below a grey bar at the top edge."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BITS = 10
TURNED_RIGHT = (0, 65536, 0, -65536, 0, 0, 0, 0, 0x40000000)
"""Display matrix of a file that players turn 90 degrees clockwise."""


def numbered(number: int, height: int = 48, width: int = 160) -> np.ndarray:
    frame = np.full((height, width, 3), 128, np.uint8)
    block = width // BITS
    for bit in range(BITS):
        frame[height // 3 :, bit * block : (bit + 1) * block] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """Read the number back from an upright frame of any size; fails where the pattern is not there."""
    height, width = frame.shape[:2]
    grey = frame.astype(float).mean(axis=2)
    assert abs(grey[: height // 4].mean() - 128) < 20, "no grey bar at the top"
    centres = [round((bit + 0.5) * width / BITS) for bit in range(BITS)]
    values = [grey[height // 2 :, centre - 2 : centre + 3].mean() for centre in centres]
    assert all(value < 60 or value > 195 for value in values), values
    return sum(1 << bit for bit, value in enumerate(values) if value > 128)


def write_video(
    path: Path,
    times: Sequence[Fraction],
    *,
    rate: Fraction = Fraction(30),
    aspect: Fraction | None = None,
    turned: bool = False,
    gop: int = 25,
    size: tuple[int, int] = (48, 160),
) -> None:
    """Write frame k at times[k], with B-frames, so that decoding order is not display order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    base = Fraction(1, 90000)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "g": str(gop), "bf": "2"})
        pixels = [numbered(number, *size) for number in range(len(times))]
        if turned:
            pixels = [np.rot90(frame) for frame in pixels]
        stream.height, stream.width, stream.pix_fmt = *pixels[0].shape[:2], "yuv420p"
        stream.codec_context.time_base = base
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for time, frame in zip(times, pixels, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = round(time / base), base
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    if turned:
        data = path.read_bytes()
        offset = data.index(b"tkhd") + 44
        path.write_bytes(data[:offset] + struct.pack(">9i", *TURNED_RIGHT) + data[offset + 36 :])


def constant(frames: int, rate: Fraction) -> list[Fraction]:
    return [number / rate for number in range(frames)]


def write_cameras(path: Path, source: str, microseconds: Sequence[int], *, aspect: float = 160 / 48) -> None:
    """Write a camera per time; square pixels in a frame of that aspect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"http://videos.invalid/{source}.mp4"]
    for number, time in enumerate(microseconds):
        angle = 0.01 * number
        c, s = np.cos(angle), np.sin(angle)
        row = [0.5, 0.5 * aspect, 0.5, 0.5, 0, 0, c, 0, s, 0.1 * number, 0, 1, 0, 0.02, -s, 0, c, 0.3]
        lines.append(f"{time} " + " ".join(f"{value:.9f}" for value in row))
    path.write_text("\n".join(lines) + "\n")
