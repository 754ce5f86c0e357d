"""Exact frames: every source frame carries its number, and the cut clips are read back."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cami2v import video
from cami2v.video import probe, read_frames
from data_pipeline.clips import cut
from data_pipeline.clips.clips import ClipsReport, ClipsSettings, cut_clips
from data_pipeline.clips.record import read_record, record_path
from data_pipeline.realestate10k.encode import FrameFormat
from data_pipeline.realestate10k.inspect import inspect_clip
from data_pipeline.realestate10k.layout import find_clips
from tests.data_pipeline.clips.numbered_videos import constant, number_of, numbered, write_cameras, write_video

SETTINGS = ClipsSettings(
    frame_format=FrameFormat(short_side=720, crf=10, gop=60, fast_decode=False), processes=1, task=None, tasks=None
)
NTSC = Fraction(24000, 1001)
FILM = Fraction(24)


def micro(times: Sequence[Fraction], numbers: Sequence[int], late: int = 0) -> list[int]:
    return [round(times[number] * 1_000_000) + late for number in numbers]


def cut_here(tmp_path: Path, **changes: Any) -> ClipsReport:
    settings = replace(SETTINGS, **changes)
    return cut_clips(tmp_path / "videos", tmp_path / "list", tmp_path / "raw", settings, progress=False)


def numbers_in(path: Path) -> list[int]:
    return [number_of(frame) for frame in read_frames(path)]


def irregular(frames: int) -> list[Fraction]:
    steps = np.random.default_rng(1).integers(20, 70, frames)
    return [Fraction(int(total), 1000) for total in np.cumsum(steps) - steps[0]]


@pytest.mark.parametrize(
    ("times", "options"),
    [
        (constant(150, Fraction(30)), {}),
        (constant(150, NTSC), {"rate": NTSC}),
        (irregular(150), {}),
        (constant(150, Fraction(30)), {"turned": True}),
        (constant(150, Fraction(30)), {"aspect": Fraction(4, 3)}),
        (constant(150, Fraction(30)), {"aspect": Fraction(3, 4)}),
        (constant(150, FILM), {"rate": FILM, "aspect": Fraction(4, 3), "turned": True}),
    ],
    ids=["30", "23.976", "variable", "turned", "wide_pixels", "tall_pixels", "turned_wide"],
)
def test_frames_are_those_of_the_times(tmp_path: Path, times: list[Fraction], options: dict) -> None:
    write_video(tmp_path / "videos" / "src.mp4", times, **options)
    first, second = range(31, 48), range(100, 140, 2)
    write_cameras(tmp_path / "list" / "train" / "a.txt", "src", micro(times, first, late=3000))
    write_cameras(tmp_path / "list" / "train" / "b.txt", "src", micro(times, second))
    report = cut_here(tmp_path)
    assert report.lines() == ["2 clips in the list, 2 there (100.0 %), 0 of them before"]
    folder = tmp_path / "raw" / "video_clips" / "train"
    assert numbers_in(folder / "a.mp4") == list(first)
    assert numbers_in(folder / "b.mp4") == list(second)
    record = read_record(folder / "a.mp4")
    assert record is not None
    assert record.frame_indices == tuple(first)
    assert all(abs(offset + 3000) <= 12 for offset in record.timestamp_offsets_microseconds), (
        "a tick is 11 microseconds"
    )
    aspect = float(options.get("aspect", 1))
    shown = 1 / aspect if options.get("turned") else aspect
    assert record.source["pixel_aspect"] == pytest.approx(shown)
    assert record.source["rotation_applied_degrees"] == (90 if options.get("turned") else 0)
    info = probe(folder / "a.mp4")
    assert info.width / info.height == pytest.approx(160 / 48 * shown, rel=0.02), "square pixels"
    assert info.height >= 48
    assert info.width >= 160
    assert (tmp_path / "raw/pose_files/train/a.txt").read_bytes() == (tmp_path / "list/train/a.txt").read_bytes()


@pytest.mark.parametrize(
    ("codec", "name"),
    [("libvpx-vp9", "src.webm"), ("libsvtav1", "src.mp4"), ("libx265", "src.mp4"), ("libx264", "src.mkv")],
)
def test_other_codecs_and_containers(tmp_path: Path, codec: str, name: str) -> None:
    (tmp_path / "videos").mkdir()
    with video.av.open(str(tmp_path / "videos" / name), "w") as container:
        stream: Any = container.add_stream(codec, rate=30, options={"crf": "15", "g": "20"})
        stream.height, stream.width, stream.pix_fmt = 96, 320, "yuv420p"
        for number in range(90):
            frame = numbered(number, 96, 320)
            container.mux(stream.encode(video.av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    write_cameras(tmp_path / "list" / "a.txt", "src", micro(constant(90, Fraction(30)), range(25, 50)))
    write_cameras(tmp_path / "list" / "b.txt", "src", micro(constant(90, Fraction(30)), range(83, 90)))
    assert cut_here(tmp_path).there == 2
    assert numbers_in(tmp_path / "raw" / "video_clips" / "a.mp4") == list(range(25, 50))
    assert numbers_in(tmp_path / "raw" / "video_clips" / "b.mp4") == list(range(83, 90))


def test_the_nearest_frame_is_taken_and_far_ones_are_reported(tmp_path: Path) -> None:
    times = constant(90, Fraction(30))
    write_video(tmp_path / "videos" / "src.mp4", times)
    write_cameras(tmp_path / "list" / "near.txt", "src", micro(times, range(20, 30), late=-7900))
    write_cameras(tmp_path / "list" / "far.txt", "src", micro(times, range(20, 30), late=12000))
    report = cut_here(tmp_path)
    for name in ("near", "far"):
        assert numbers_in(tmp_path / "raw" / "video_clips" / f"{name}.mp4") == list(range(20, 30))
    assert list(report.far()) == ["far"]
    assert report.far()["far"] == pytest.approx(12000, abs=12)
    assert "1 clips have a frame more than 8 ms from its annotated time (at most 12.0 ms)" in report.lines()
    written = json.loads((tmp_path / "raw" / "clips_report.json").read_text())
    assert written["timestamps_off_by_more_than_8_ms"] == report.far()


def test_every_source_is_decoded_once_however_many_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = constant(120, Fraction(30))
    write_video(tmp_path / "videos" / "src.mp4", times)
    starts = (5, 8, 40, 44, 90)
    for start in starts:
        write_cameras(tmp_path / "list" / f"c{start}.txt", "src", micro(times, range(start, start + 8)))
    passes = []

    def counted(path: Path, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray]]:
        passes.append(path)
        return video.read_forward(path, indices)

    monkeypatch.setattr(cut, "read_forward", counted)
    cut_here(tmp_path)
    assert len(passes) == 1
    for start in starts:
        assert numbers_in(tmp_path / "raw" / "video_clips" / f"c{start}.mp4") == list(range(start, start + 8))


def test_what_cannot_be_cut_is_told_by_reason_and_never_replaced(tmp_path: Path) -> None:
    times = constant(60, Fraction(30))
    write_video(tmp_path / "videos" / "src.mp4", times)
    (tmp_path / "videos" / "text.mp4").write_text("not a video")
    good = micro(times, range(10, 20))
    write_cameras(tmp_path / "list" / "good.txt", "src", good)
    write_cameras(tmp_path / "list" / "gone.txt", "nowhere", good)
    write_cameras(tmp_path / "list" / "text.txt", "text", good)
    write_cameras(tmp_path / "list" / "short.txt", "src", [time + 1_600_000 for time in good])
    write_cameras(tmp_path / "list" / "dense.txt", "src", [500_000 + 10_000 * number for number in range(10)])
    (tmp_path / "list" / "empty.txt").write_text("")
    (tmp_path / "list" / "broken.txt").write_text("http://videos.invalid/src.mp4\n1 2 3\n")
    report = cut_here(tmp_path)
    reasons = {clip.clip_id: clip.reason for clip in report.results}
    assert reasons == {
        "good": None,
        "gone": "video_missing",
        "text": "video_unreadable",
        "short": "video_too_short",
        "dense": "frame_count_mismatch",
        "empty": "pose_file_malformed",
        "broken": "pose_file_malformed",
    }
    assert report.lines()[0] == "7 clips in the list, 1 there (14.3 %), 0 of them before"
    assert [path.stem for path in (tmp_path / "raw" / "pose_files").glob("*.txt")] == ["good"]
    assert [path.name for path in (tmp_path / "raw" / "video_clips").glob("*.mp4")] == ["good.mp4"]


def test_a_damaged_place_costs_only_the_clips_that_lie_there(tmp_path: Path) -> None:
    times = constant(120, Fraction(30))
    path = tmp_path / "videos" / "src.mp4"
    write_video(path, times, gop=10)
    for start in (5, 45, 95):
        write_cameras(tmp_path / "list" / f"c{start}.txt", "src", micro(times, range(start, start + 8)))
    with video.av.open(str(path), "r") as container:
        packets = [p for p in container.demux(video=0) if p.pts is not None]
        places = [(p.pts, p.pos, p.size) for p in packets if p.pts is not None and p.pos is not None]
    data = bytearray(path.read_bytes())
    for _, position, size in sorted(places)[40:60]:
        data[position : position + size] = bytes(size)
    path.write_bytes(data)
    report = cut_here(tmp_path)
    assert {clip.clip_id: clip.reason for clip in report.results} == {
        "c5": None,
        "c45": "video_unreadable",
        "c95": None,
    }
    assert numbers_in(tmp_path / "raw" / "video_clips" / "c95.mp4") == list(range(95, 103))


def test_another_run_keeps_what_is_there_and_cuts_again_what_changed(tmp_path: Path) -> None:
    times = constant(90, Fraction(30))
    write_video(tmp_path / "videos" / "src.mp4", times)
    write_cameras(tmp_path / "list" / "a.txt", "src", micro(times, range(10, 20)))
    write_cameras(tmp_path / "list" / "b.txt", "src", micro(times, range(30, 40)))
    cut_here(tmp_path)
    clips = tmp_path / "raw" / "video_clips"
    before = {name: (clips / name).stat().st_mtime_ns for name in ("a.mp4", "b.mp4")}
    write_cameras(tmp_path / "list" / "b.txt", "src", micro(times, range(50, 60)))
    assert sum(result.kept for result in cut_here(tmp_path).results) == 1
    assert (clips / "a.mp4").stat().st_mtime_ns == before["a.mp4"]
    assert numbers_in(clips / "b.mp4") == list(range(50, 60))
    shutil.rmtree(tmp_path / "videos")
    (tmp_path / "videos").mkdir()
    assert cut_here(tmp_path).there == 2, "sources may go once their clips are there"
    write_video(tmp_path / "videos" / "src.mp4", constant(40, Fraction(30)))
    report = cut_here(tmp_path)
    assert {clip.clip_id: clip.reason for clip in report.results} == {"a": None, "b": "video_too_short"}
    assert not (tmp_path / "raw" / "pose_files" / "b.txt").exists(), "b is of a video that is no longer there"


def test_several_processes_write_the_same_bytes(tmp_path: Path) -> None:
    times = constant(60, Fraction(30))
    for source in ("one", "two", "three"):
        write_video(tmp_path / "videos" / f"{source}.mp4", times)
        write_cameras(tmp_path / "list" / f"{source}.txt", source, micro(times, range(10, 20)))
    files = []
    for processes in (1, 2):
        cut_here(tmp_path, processes=processes)
        files.append({path.name: path.read_bytes() for path in (tmp_path / "raw").rglob("*.*") if path.is_file()})
        shutil.rmtree(tmp_path / "raw")
    assert files[0].keys() == files[1].keys()
    assert files[0] == files[1]


def test_killed_while_cutting_and_continued(tmp_path: Path) -> None:
    times = constant(60, Fraction(30))
    for number in range(12):
        write_video(tmp_path / "videos" / f"s{number}.mp4", times, size=(240, 320))
        write_cameras(tmp_path / "list" / f"c{number}.txt", f"s{number}", micro(times, range(5, 55)), aspect=4 / 3)
    folders = [
        f"{key}={tmp_path / name}" for key, name in (("videos", "videos"), ("cameras", "list"), ("output", "raw"))
    ]
    running = subprocess.Popen([sys.executable, "-m", "launch.data_clips", *folders, "clips.processes=1"])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "raw").glob("pose_files/*.txt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    announced = {path.stem for path in (tmp_path / "raw" / "pose_files").glob("*.txt")}
    assert 0 < len(announced) < 12
    for name in announced:
        assert numbers_in(tmp_path / "raw" / "video_clips" / f"{name}.mp4") == list(range(5, 55))
    report = cut_here(tmp_path)
    assert report.there == 12
    assert {result.clip_id for result in report.results if result.kept} == announced


def test_pack_takes_offsets_and_rotation_from_the_record(tmp_path: Path) -> None:
    times = constant(60, Fraction(30))
    write_video(tmp_path / "videos" / "src.mp4", times, turned=True, aspect=Fraction(3, 4))
    write_cameras(tmp_path / "list" / "a.txt", "src", micro(times, range(10, 30, 2), late=2000), aspect=160 / 36)
    cut_here(tmp_path)
    (clip,) = find_clips(tmp_path / "raw").clips
    inspected = inspect_clip(clip, min_frames=4, default_caption="a room")
    assert inspected.offsets_microseconds.tolist() == pytest.approx([-2000] * 10, abs=12)
    assert inspected.rotation_degrees == 90
    assert inspected.pixel_aspect == 1.0
    assert inspected.native_frames_per_second == pytest.approx(30)
    assert inspected.frames_per_second == pytest.approx(15, rel=1e-4)
    record_path(tmp_path / "raw" / "video_clips" / "a.mp4").unlink()
    assert inspect_clip(clip, min_frames=4, default_caption="a room").offsets_microseconds.tolist() == [0] * 10


def test_folders_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    write_cameras(tmp_path / "list" / "a.txt", "src", [0, 40000])
    with pytest.raises(ValueError, match=re.escape("no such folder; expected <video id>.mp4")):
        cut_here(tmp_path)
    (tmp_path / "videos").mkdir()
    write_cameras(tmp_path / "list" / "train" / "b.txt", "src", [0, 40000])
    with pytest.raises(ValueError, match="both directly and below"):
        cut_here(tmp_path)
    write_cameras(tmp_path / "raw" / "pose_files" / "c.txt", "src", [0, 40000])
    with pytest.raises(ValueError, match="are the cameras that are read"):
        cut_clips(tmp_path / "videos", tmp_path / "raw", tmp_path / "raw", SETTINGS, progress=False)
