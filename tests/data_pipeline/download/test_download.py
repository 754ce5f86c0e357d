"""Downloading through the real yt-dlp from a local server that behaves and misbehaves."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cami2v.video import encode_mp4
from data_pipeline.download.download import DownloadReport, DownloadSettings, download
from data_pipeline.download.status import PERMANENT, Status
from tests.data_pipeline.download.misbehaving_server import VideoServer, serving

CAMERA = "0.5 0.9 0.5 0.5 0 0 1 0 0 0 0 1 0 0 0 0 1 0"

SETTINGS = DownloadSettings(
    resolution=720,
    parallel=2,
    rate_limit=None,
    pause_seconds=(0.0, 0.0),
    attempts=3,
    backoff_seconds=0.02,
    timeout_seconds=1.5,
    cookies=None,
    retry=(),
    stop_after_blocked=20,
    ytdlp_arguments=(),
)


@pytest.fixture(scope="module")
def video() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (30, 96, 128, 3), np.uint8)
    return encode_mp4(noise, fps=30, crf=10)


@pytest.fixture
def server(video: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[VideoServer]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(video) as running:
        yield running


def write_list(folder: Path, addresses: dict[str, str], *, last_microseconds: int = 900_000) -> Path:
    """Write a camera file per clip: clip id -> address."""
    for clip, address in addresses.items():
        path = folder / "train" / f"{clip}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{address}\n0 {CAMERA}\n{last_microseconds} {CAMERA}\n")
    return folder


def get(tmp_path: Path, server: VideoServer, *names: str, **changes: Any) -> DownloadReport:
    cameras = write_list(tmp_path / "list", {f"clip_{name}": server.address(name) for name in names})
    return download(cameras, tmp_path / "videos", replace(SETTINGS, **changes), progress=False)


def statuses(report: DownloadReport) -> dict[str, str]:
    return {key: str(result.status) for key, result in report.results.items()}


def test_every_kind_of_misbehaviour_gets_its_status(tmp_path: Path, server: VideoServer, video: bytes) -> None:
    expected = {
        "good": "ok",
        "busy": "ok",
        "cut": "ok",
        "stall": "ok",
        "missing": "removed",
        "gone": "removed",
        "limited": "blocked",
        "forbidden": "blocked",
        "broken": "network",
        "page": "not_a_video",
        "liar": "not_a_video",
        "dead": "network",
        "unannounced": "network",
    }
    report = get(tmp_path, server, *expected, parallel=4)
    assert statuses(report) == expected
    there = sorted(path.name for path in (tmp_path / "videos").glob("*.mp4"))
    assert there == ["busy.mp4", "cut.mp4", "good.mp4", "stall.mp4"]
    assert all((tmp_path / "videos" / name).read_bytes() == video for name in there)
    text = "\n".join(report.lines())
    assert text.startswith("13 videos in the list, 4 there (30.8 %), 13 tried now\n13 clips in the list, 4 of videos")
    assert "removed: 2 (" in text
    assert "blocked: 2 (" in text
    assert "network: 3 (" in text
    assert "not_a_video: 2 (" in text
    lines = [json.loads(line) for line in (tmp_path / "videos" / "download_status.jsonl").read_text().splitlines()]
    good = next(line for line in lines if line["source_id"] == "good")
    assert (good["bytes"], good["height"], good["width"], good["file"]) == (len(video), 96, 128, "good.mp4")
    assert good["seconds"] == pytest.approx(29 / 30)
    assert good["attempts"] == 1
    assert good["message"] == ""


def test_a_cut_transfer_is_continued_where_it_ended(tmp_path: Path, server: VideoServer, video: bytes) -> None:
    report = get(tmp_path, server, "cut")
    assert report.results["cut"].attempts == 2
    assert any(int(re.findall(r"\d+", asked)[0]) >= len(video) // 4 for asked in server.ranges["cut"])


def test_a_second_run_asks_only_for_what_may_have_changed(tmp_path: Path, server: VideoServer) -> None:
    names = ("good", "missing", "page", "broken", "limited")
    get(tmp_path, server, *names, attempts=1)
    before = dict(server.gets)
    report = get(tmp_path, server, *names, attempts=1)
    asked = {name for name in names if server.gets[name] > before[name]}
    assert asked == {"broken", "limited"}
    assert report.tried == 2
    assert statuses(report)["missing"] == "removed"
    assert Status.REMOVED in PERMANENT
    get(tmp_path, server, *names, attempts=1, retry=(Status.REMOVED,))
    assert server.gets["missing"] > before["missing"]
    assert server.gets["page"] == before["page"]


def test_a_file_that_vanished_comes_again_and_one_put_there_by_hand_is_taken(
    tmp_path: Path, server: VideoServer, video: bytes
) -> None:
    get(tmp_path, server, "good")
    (tmp_path / "videos" / "good.mp4").unlink()
    (tmp_path / "videos" / "missing.mp4").write_bytes(video)
    report = get(tmp_path, server, "good", "missing")
    assert statuses(report) == {"good": "ok", "missing": "ok"}
    assert server.gets["missing"] == 0
    assert report.results["missing"].attempts == 0
    assert (tmp_path / "videos" / "good.mp4").read_bytes() == video


def test_a_video_shared_by_clips_comes_once_and_one_that_is_too_short_says_so(
    tmp_path: Path, server: VideoServer
) -> None:
    cameras = write_list(tmp_path / "list", {"a": server.address("good"), "b": server.address("good")})
    write_list(cameras, {"c": server.address("brief")}, last_microseconds=1_100_000)
    (cameras / "train" / "d.txt").write_text("\n")
    report = download(cameras, tmp_path / "videos", SETTINGS, progress=False)
    assert statuses(report) == {"good": "ok", "brief": "too_short"}
    assert report.results["good"].clips == 2
    assert server.gets["good"] <= 3
    assert report.results["brief"].message == "ends at 1.00 s, the last camera is at 1.10 s"
    assert "4 clips in the list, 3 of videos that are there" in report.lines()[1]
    assert "camera files without an address: 1" in report.lines()[-1]


def test_a_site_that_refuses_ends_the_run(tmp_path: Path, server: VideoServer) -> None:
    names = [f"limited-{number}" for number in range(8)]
    report = get(tmp_path, server, *names, attempts=1, parallel=1, stop_after_blocked=3)
    assert report.tried == 3
    assert report.stopped
    assert "3 videos in a row were refused" in report.stopped
    assert "  not tried: 5" in report.lines()


def test_several_come_at_a_time_but_not_more_than_asked(tmp_path: Path, server: VideoServer) -> None:
    get(tmp_path, server, *(f"slow-{number}" for number in range(4)), parallel=2, timeout_seconds=5.0)
    assert server.most_active == 2


def test_the_rate_is_limited(tmp_path: Path, server: VideoServer, video: bytes) -> None:
    limit = len(video) / 2 / 1024
    start = time.monotonic()
    report = get(tmp_path, server, "good", rate_limit=f"{limit:.2f}K", parallel=1)
    assert report.results["good"].status is Status.OK
    assert time.monotonic() - start > 1.2, "half of the video per second"


def test_the_proxy_of_the_environment_is_used(
    tmp_path: Path, server: VideoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_address[1]}")
    cameras = write_list(tmp_path / "list", {"a": "http://videos.invalid/good.mp4"})
    report = download(cameras, tmp_path / "videos", SETTINGS, progress=False)
    assert statuses(report) == {"good": "ok"}


def test_cookies_are_sent_and_their_file_is_left_alone(tmp_path: Path, server: VideoServer) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t2000000000\tsession\tsecret\n")
    before = hashlib.sha256(cookies.read_bytes()).hexdigest()
    seen = []
    handler = server.RequestHandlerClass

    class Watching(handler):  # type: ignore[misc, valid-type]  # the class of a running server
        def answer(self, *, body: bool) -> None:
            seen.append(self.headers.get("Cookie"))
            super().answer(body=body)

    server.RequestHandlerClass = Watching
    get(tmp_path, server, "good", cookies=str(cookies))
    assert seen
    assert all(value == "session=secret" for value in seen)
    assert hashlib.sha256(cookies.read_bytes()).hexdigest() == before


def test_killed_at_once_and_continued(tmp_path: Path, server: VideoServer, video: bytes) -> None:
    cameras = write_list(tmp_path / "list", {"a": server.address("good"), "b": server.address("slow")})
    command = [sys.executable, "-m", "launch.data_download", f"cameras={cameras}", f"output={tmp_path / 'videos'}"]
    running = subprocess.Popen([*command, "download.pause_seconds=[0,0]", "download.parallel=1"])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "videos" / ".partial" / "slow").glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.6)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert [path.name for path in (tmp_path / "videos").glob("*.mp4")] == ["good.mp4"]
    status = tmp_path / "videos" / "download_status.jsonl"
    status.write_text(status.read_text() + '{"source_id": "slow", "addr')
    before = server.gets["good"]
    report = download(cameras, tmp_path / "videos", replace(SETTINGS, timeout_seconds=5.0), progress=False)
    assert statuses(report) == {"good": "ok", "slow": "ok"}
    assert server.gets["good"] == before
    assert (tmp_path / "videos" / "slow.mp4").read_bytes() == video
    assert any(not asked.startswith("bytes=0-") for asked in server.ranges["slow"]), "it began again from the start"
    assert not list((tmp_path / "videos" / ".partial").glob("*/*"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"parallel": 0}, "download.parallel=0: must be at least 1"),
        ({"rate_limit": "fast"}, "download.rate_limit=fast: expected bytes per second like 500K"),
        ({"pause_seconds": (4.0, 1.0)}, "download.pause_seconds=[4.0, 1.0]: expected [shortest, longest]"),
        ({"cookies": "nowhere.txt"}, "download.cookies=nowhere.txt: no such file"),
        ({"ytdlp_arguments": ("--no-such-flag",)}, "download.ytdlp_arguments: yt-dlp does not take them"),
        ({"ytdlp_arguments": ("word",)}, "download.ytdlp_arguments: 'word' is not a flag"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    cameras = write_list(tmp_path / "list", {"a": "http://videos.invalid/good.mp4"})
    with pytest.raises(ValueError, match=re.escape(says)):
        download(cameras, tmp_path / "videos", replace(SETTINGS, **changes), progress=False)
    assert not (tmp_path / "videos").exists()
