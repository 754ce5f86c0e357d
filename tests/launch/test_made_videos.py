"""`cami2v evaluate videos=<folder> cameras=<folder>`: no model, no shards, what somebody else made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cami2v.evaluation.folder import EvaluationFolder
from cami2v.file_hash import file_sha256
from cami2v.video import write_mp4
from launch.compose import compose_config
from launch.evaluate import run

MEASURE = "{_target_: tests.launch.brightness.Brightness}"
FRAMES, HEIGHT, WIDTH = 4, 36, 64


def write_cameras(path: Path, cameras: int) -> None:
    """Write a RealEstate10K file of a 16:9 video whose camera walks."""
    rows = [f"{1000 * k} 0.45 0.8 0.5 0.5 0 0 1 0 0 {0.1 * k} 0 1 0 0 0 0 1 0" for k in range(cameras)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["https://video/x", *rows]) + "\n")


def write_video(path: Path, *, frames: int = FRAMES, height: int = HEIGHT, width: int = WIDTH, level: int = 99) -> None:
    write_mp4(path, np.full((frames, height, width, 3), level, dtype=np.uint8), 8)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two clips with cameras, truth and two methods; a third clip has cameras only."""
    for number, clip in enumerate(("a", "b", "unused")):
        write_cameras(tmp_path / "cameras" / "test" / f"{clip}.txt", FRAMES)
        if clip != "unused":
            for name in ("ours", "theirs", "truth"):
                write_video(tmp_path / name / f"{clip}.mp4", level=20 * number + 40)
    return tmp_path


def judge(made: Path, *overrides: str, cameras: str = "cameras") -> dict[str, Any]:
    measures = ["~evaluation.measures", f"+evaluation.measures={{brightness: {MEASURE}}}"]
    places = [f"cameras={made / cameras}", f"output={made / 'out'}"]
    run(compose_config("evaluate", [*measures, *places, *overrides]))
    results: dict[str, Any] = json.loads((made / "out" / "results.json").read_text())
    return results


def test_several_sets_and_the_truth_are_judged_where_they_lie(made: Path) -> None:
    (made / "theirs" / "b.mp4").unlink()
    (made / "theirs" / "a.mp4").rename(made / "theirs" / "a.mkv")
    results = judge(made, f"videos={{ours: {made / 'ours'}, theirs: {made / 'theirs'}}}", f"truth={made / 'truth'}")
    assert list(results["summary"]) == ["ground_truth", "ours", "theirs"]
    counted = {name: row["figures"]["brightness"]["counted"] for name, row in results["summary"].items()}
    assert counted == {"ground_truth": 2, "ours": 2, "theirs": 1}, "a video that others have is missed"
    identity = results["evaluation"]
    assert (identity["frames"], identity["resolution"], identity["clips"]) == (FRAMES, [HEIGHT, WIDTH], 2)
    assert (identity["camera_stride"], identity["cameras_without_video"]) == (None, 1)
    folder = EvaluationFolder(made / "out")
    link = folder.video("theirs", "a")
    assert link.readlink() == (made / "theirs" / "a.mkv").resolve()
    row = json.loads(folder.measurement("brightness", "theirs", "a").read_text())
    assert row["measured_with"]["inputs"]["video"] == file_sha256(made / "theirs" / "a.mkv")
    assert identity["manifest_sha256"]
    assert "- generated on: not known, these videos were made elsewhere" in (made / "out" / "report.md").read_text()
    (made / "out" / "machines" / "generate-0.json").write_text('{"cpu": "A", "device": "B"}')
    (made / "out" / "machines" / "generate-1.json").write_text('{"cpu": "A", "device": "C"}')
    judge(made, "videos=none", "evaluation.stages=[report]")
    text = (made / "out" / "report.md").read_text()
    assert "- generated on (1): cpu=A, device=B\n- generated on (2): cpu=A, device=C\n- measured on: cpu=" in text


def test_cameras_are_chosen_and_cropped_with_the_frames(made: Path) -> None:
    for clip in ("a", "b"):
        write_cameras(made / "cameras" / "test" / f"{clip}.txt", 8)
        write_video(made / "square" / f"{clip}.mp4", height=32, width=32)
    judge(made, f"videos={made / 'square'}", "camera_stride=2")
    cameras = EvaluationFolder(made / "out").read_cameras("a")
    np.testing.assert_allclose(cameras.world_to_camera[:, 0, 3], [0, 0.2, 0.4, 0.6])
    # Of 56x32 frames the middle 32 columns: the focal length is that of the whole frame.
    np.testing.assert_allclose(cameras.intrinsics_pixels[0], [0.45 * 56, 0.8 * 32, 16, 16], atol=0.5)
    clip = json.loads((made / "out" / "manifest.json").read_text())["clips"][0]
    assert (clip["frame_indices"], clip["frame_stride"]) == ([0, 2, 4, 6], 2)
    # The cameras and clips of that evaluation are those of another one.
    again = made / "again"
    (made / "out").rename(again)
    given = [f"evaluation.manifest={again / 'manifest.json'}", f"videos={made / 'square'}"]
    results = judge(made, *given, cameras="again/cameras")
    assert (
        results["evaluation"]["manifest_sha256"]
        == json.loads((again / "evaluation.json").read_text())["manifest_sha256"]
    )
    assert (made / "out" / "manifest.json").read_bytes() == (again / "manifest.json").read_bytes()


def test_broken_videos_are_failures_of_their_clips(made: Path) -> None:
    (made / "ours" / "a.mp4").write_bytes(b"no video")
    write_video(made / "theirs" / "b.mp4", frames=3)
    results = judge(made, f"videos={{ours: {made / 'ours'}, theirs: {made / 'theirs'}}}")
    reasons = {
        (clip["video_set"], clip["clip_id"]): failure["reason"]
        for clip in results["clips"]
        for failure in clip["failures"]
    }
    assert reasons == {("ours", "a"): "unreadable video", ("theirs", "b"): "wrong frame count"}


@pytest.mark.parametrize(
    ("prepare", "overrides", "message"),
    [
        ("", ["videos={made}/none"], "videos={made}/none: no such folder"),
        ("", ["videos={made}/ours/a.mp4"], "videos={made}/ours/a.mp4: a file; give its folder, {made}/ours"),
        ("", ["videos={made}/ours", "cameras=null"], "cameras: not set; videos=<folder> needs cameras=<folder>"),
        ("", ["videos={made}/none", "evaluation.stages=[measure]"], "{made}/out: no evaluation there to measure"),
        ("", ["videos={made}/cameras"], "no videos; expected <clip> with one of .mp4"),
        ("no cameras", ["videos={made}/ours"], "has no cameras for 1 of 2 videos (first a); a video <clip>.mp4 needs"),
        ("large", ["videos={made}/ours"], "frames of 36x64 (height x width), {made}/ours/a.mp4 has 72x128; one"),
        ("short", ["videos={made}/ours"], "2 frames, but {made}/cameras/test/a.txt has 4 cameras for it"),
        ("", ["videos={made}/ours", "camera_stride=2"], "videos of 4 frames need 7 cameras, {made}/cameras/"),
        ("", ["videos={made}/ours", "camera_stride=0"], "camera_stride=0: must be at least 1"),
        ("", ["videos={{ground_truth: {made}/ours}}"], "videos.ground_truth: names of video sets"),
        ("", ["videos={made}/ours", "evaluation.interventions=true"], "takes videos as they are"),
        ("twice", ["videos={made}/ours"], "a.mp4 and a.mkv are both of clip a; keep one"),
        ("motionctrl", ["videos={made}/ours"], "b.json: has no focal lengths"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(made: Path, prepare: str, overrides: list[str], message: str) -> None:
    if prepare == "no cameras":
        (made / "cameras" / "test" / "a.txt").unlink()
    elif prepare == "large":
        write_video(made / "ours" / "a.mp4", height=72, width=128)
    elif prepare == "short":
        for clip in ("a", "b"):
            write_video(made / "ours" / f"{clip}.mp4", frames=2)
    elif prepare == "twice":
        (made / "ours" / "a.mkv").write_bytes((made / "ours" / "a.mp4").read_bytes())
    elif prepare == "motionctrl":
        (made / "cameras" / "test" / "b.txt").unlink()
        (made / "cameras" / "test" / "b.json").write_text(json.dumps([[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]] * 4))
    with pytest.raises(ValueError, match=".") as error:
        judge(made, *(override.format(made=made) for override in overrides))
    assert message.format(made=made) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (made / "out" / "evaluation.json").exists()
