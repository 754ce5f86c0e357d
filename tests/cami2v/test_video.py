"""Video files: round trips, agreement of both decoders, clear errors."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from cami2v import video


def moving_pattern(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    rows = []
    for t in range(frames):
        phase = (x + 3 * t) / 9.0
        rows.append(np.stack([127 + 90 * np.sin(phase), 127 + 80 * np.cos(y / 7.0), np.full_like(phase, 10 * t)], -1))
    return np.asarray(rows).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def turn(data: bytes, matrix: tuple[int, ...]) -> bytes:
    """Write another display matrix into the mp4's track header."""
    offset = data.index(b"tkhd") + 44
    return data[:offset] + struct.pack(">9i", *matrix) + data[offset + 36 :]


def pyav_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise video._DecordFailed("switched off by the test")

    monkeypatch.setattr(video, "_decord_chunks", fail)


def test_round_trip_keeps_frames_rate_and_order(tmp_path: Path) -> None:
    frames = moving_pattern()
    video.write_mp4(tmp_path / "a.mp4", frames, 29.97, crf=8)
    info = video.probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width) == (12, 48, 64)
    assert info.frames_per_second == pytest.approx(29.97, rel=1e-4)
    np.testing.assert_allclose(info.timestamps_seconds, np.arange(12) / 29.97, atol=1e-3)
    assert (info.rotation_degrees, info.pixel_aspect) == (0, 1.0)
    assert psnr(video.read_frames(tmp_path / "a.mp4"), frames) > 33
    picked = video.read_frames(tmp_path / "a.mp4", [7, 2, 2])
    np.testing.assert_array_equal(picked, video.read_frames(tmp_path / "a.mp4")[[7, 2, 2]])


@pytest.mark.parametrize("b_frames", [0, 3])
def test_all_decoders_agree(
    b_frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(video.encode_mp4(moving_pattern(), fps=8, fast_decode=True, gop=5, b_frames=b_frames))
    with_decord = video.read_frames(path, [0, 5, 11])
    np.testing.assert_array_equal(video.read_frames(path.read_bytes(), [0, 5, 11]), with_decord)
    pyav_only(monkeypatch)
    np.testing.assert_array_equal(video.read_frames(path, [0, 5, 11]), with_decord)
    assert "reading with PyAV" in caplog.text


@pytest.mark.parametrize("b_frames", [0, 3, 7])
def test_chosen_frames_from_memory_are_those_of_the_whole_video(b_frames: int) -> None:
    data = video.encode_mp4(moving_pattern(50, 32, 38), fps=30, gop=12, b_frames=b_frames, fast_decode=True)
    everything = video.read_frames(data)
    assert psnr(everything, moving_pattern(50, 32, 38)) > 30
    for stride in (1, 3, 7, 11):
        for first in range(0, 50 - 4 * stride, 3):
            chosen = list(range(first, first + 5 * stride, stride))[:5]
            np.testing.assert_array_equal(video.read_frames(data, chosen), everything[chosen])


def test_frames_nobody_asked_for_are_not_decoded() -> None:
    """Nothing refers to B-frames: with seven between two others, every eighth frame is all that is decoded."""
    data = video.encode_mp4(moving_pattern(50), fps=30, gop=25, b_frames=7)
    decoded: list[int | None] = []
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            stream.codec_context.skip_frame = "NONREF"
            decoded += [frame.pts for frame in stream.codec_context.decode(packet)]
    assert len(decoded) == 8, "two key frames and three frames after each"


def test_jpeg_pictures_in_an_mp4(tmp_path: Path) -> None:
    frames = moving_pattern(12, 33, 47)
    data = video.encode_jpeg_mp4(iter(frames), fps=29.97, quality=95)
    assert data == video.encode_jpeg_mp4(frames, fps=29.97, quality=95)
    info = video.probe(data)
    assert (info.frames, info.height, info.width) == (12, 33, 47)
    assert info.frames_per_second == pytest.approx(29.97, rel=1e-4)
    picked = video.read_frames(data, [7, 2, 2])
    assert psnr(picked, frames[[7, 2, 2]]) > 33
    (tmp_path / "a.mp4").write_bytes(data)
    assert psnr(video.read_frames(tmp_path / "a.mp4", [7, 2, 2]), picked) > 33, "players show the same"
    with pytest.raises(ValueError, match="at least one"):
        video.encode_jpeg_mp4([], fps=8, quality=95)


@pytest.mark.parametrize(
    "matrix",
    [
        (0, 65536, 0, -65536, 0, 0, 48 * 65536, 0, 0x40000000),
        (0, -65536, 0, 65536, 0, 0, 0, 64 * 65536, 0x40000000),
        (-65536, 0, 0, 0, -65536, 0, 64 * 65536, 48 * 65536, 0x40000000),
    ],
)
def test_rotation_is_applied_alike_by_both_decoders(matrix: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    data = turn(video.encode_mp4(moving_pattern(), fps=8), matrix)
    info = video.probe(data)
    upright = video.read_frames(data, [3])
    assert info.rotation_degrees in (90, 180, 270)
    assert upright.shape[1:3] == (info.height, info.width)
    pyav_only(monkeypatch)
    assert psnr(video.read_frames(data, [3]), upright) > 30


def test_encoding_is_reproducible_and_fast_decode_is_honoured() -> None:
    frames = moving_pattern()
    assert video.encode_mp4(frames, fps=8) == video.encode_mp4(frames, fps=8)
    assert video.encode_mp4(frames, fps=8, fast_decode=True) != video.encode_mp4(frames, fps=8)


def test_key_frame_every_gop_and_no_reordering(tmp_path: Path) -> None:
    video.write_mp4(tmp_path / "a.mp4", moving_pattern(), 8, gop=4)
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 4, 8]
    assert all(packet.pts == packet.dts for packet in packets)


@pytest.mark.parametrize("first_time", [0, 7])
def test_reordered_frames_and_a_late_start_do_not_shift_frame_numbers(
    first_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloaded videos have B-frames and one key frame in ten seconds; numbers count frames as shown."""
    frames = np.repeat(np.arange(40, dtype=np.uint8)[:, None, None, None] * 6, 32, axis=1).repeat(48, axis=2)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"g": "250", "bf": "3", "b_adapt": "0", "crf": "4"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for number, frame in enumerate(frames.repeat(3, axis=3)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number + first_time, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    info = video.probe(buffer.getvalue())
    np.testing.assert_allclose(info.timestamps_seconds, np.arange(40) / 25, atol=1e-3)
    for _ in range(2):
        shown = video.read_frames(buffer.getvalue(), [31, 5, 17]).mean(axis=(1, 2, 3)) / 6
        np.testing.assert_allclose(shown, [31, 5, 17], atol=0.4)
        pyav_only(monkeypatch)


def test_long_videos_are_read_in_chunks() -> None:
    frames = np.zeros((70, 16, 16, 3), np.uint8)
    chunks = list(video.read_chunks(video.encode_mp4(frames, fps=30)))
    assert [len(chunk) for chunk in chunks] == [32, 32, 6]


def test_errors_say_what_is_wrong(tmp_path: Path) -> None:
    frames = moving_pattern()
    with pytest.raises(ValueError, match=r"33x64 .*must be even"):
        video.write_mp4(tmp_path / "odd.mp4", frames[:, :33], 8)
    with pytest.raises(ValueError, match="at least one"):
        video.write_mp4(tmp_path / "none.mp4", frames[:0], 8)
    assert list(tmp_path.iterdir()) == []
    for read in (video.probe, video.read_frames):
        with pytest.raises(ValueError, match="nowhere.mp4: no such video file"):
            read(tmp_path / "nowhere.mp4")
        for data in (b"", b"not a video" * 100, video.encode_mp4(frames, fps=8)[:600]):
            with pytest.raises(ValueError, match="not a readable video"):
                read(data)
    with pytest.raises(ValueError, match="frame 12 asked for, but the video has frames 0 to 11"):
        video.read_frames(video.encode_mp4(frames, fps=8), [12])
    with pytest.raises(ValueError, match="at least one frame number"):
        video.read_frames(video.encode_mp4(frames, fps=8), [])


@pytest.mark.parametrize("options", ["", ", gop=25, b_frames=7, fast_decode=True"])
def test_bytes_do_not_depend_on_uninitialised_memory(options: str) -> None:
    # Widths that 8 does not divide: x264's macroblock tree is not repeatable there.
    program = (
        "import hashlib, numpy as np; from cami2v.video import encode_mp4;"
        "frames = np.random.default_rng(0).normal(size=(16, 240, 426, 3)).cumsum(1).cumsum(2);"
        "frames = ((frames - frames.min()) / np.ptp(frames) * 255).astype(np.uint8);"
        f"print(hashlib.sha256(encode_mp4(frames, fps=30.0{options})).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"MALLOC_PERTURB_": str(filling)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for filling in (0, 1, 77)
    }
    assert len(digests) == 1


def test_read_forward_equals_read_frames_and_jumps(tmp_path, monkeypatch):
    frames = np.repeat(np.arange(0, 240, dtype=np.uint8)[:, None, None, None], 3, axis=3)
    frames = np.broadcast_to(frames, (240, 32, 48, 3))
    video.write_mp4(tmp_path / "a.mp4", frames, 30, crf=4, gop=20)
    wanted = [3, 4, 5, 120, 121, 239]
    runs = []
    run = video._run

    def counted(*arguments):
        runs.append(0)
        return run(*arguments)

    monkeypatch.setattr(video, "_run", counted)
    got = dict(video.read_forward(tmp_path / "a.mp4", [*reversed(wanted), 120]))
    assert list(got) == wanted
    assert len(runs) == 3, "it should have jumped to 120 and 239"
    assert [round(float(frame.mean())) for frame in got.values()] == pytest.approx(wanted, abs=2)
    with pytest.raises(ValueError, match="frame 240 asked for"):
        list(video.read_forward(tmp_path / "a.mp4", [240]))


def test_a_frame_that_does_not_decode_is_not_replaced(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 32, 48, 3), np.uint8)
    data = bytearray(video.encode_mp4(noise, fps=30, gop=10))
    for key in (packet for packet in _packets(bytes(data)) if packet[2] == 25):
        data[key[0] : key[0] + key[1]] = bytes(key[1])
    (tmp_path / "a.mp4").write_bytes(data)
    with pytest.raises(ValueError, match="frame 25 does not decode|a.mp4: not a readable video"):
        list(video.read_forward(tmp_path / "a.mp4", range(20, 30)))


def _packets(data):
    with av.open(io.BytesIO(data), "r") as container:
        packets = [(packet.pos, packet.size, packet.pts or 0) for packet in container.demux(video=0) if packet.size]
    times = sorted(pts for _, _, pts in packets)
    return [(position, size, times.index(pts)) for position, size, pts in packets]
