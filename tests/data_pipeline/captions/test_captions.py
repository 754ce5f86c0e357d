"""Clips without a caption get one, whatever happens to the run or to single clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.array_tasks import Share
from data_pipeline.captions.journal import FOLDER, Journal
from data_pipeline.captions.run import CaptionReport, CaptionSettings, caption_clips
from data_pipeline.captions.shown_frames import FrameChoice, ShownClip, show
from data_pipeline.layouts.detect import open_source
from tests.data_pipeline.raw_folders import READING, clips_folder, edit_line, levels_of, sources_folder

ALL = Share(task=0, tasks=1)
SETTINGS = CaptionSettings(
    show=FrameChoice(frames=3, long_side=64), batch=2, redo=False, limit=None, processes=1, task=None, tasks=None
)


def levels(clips: Sequence[ShownClip]) -> list[str]:
    """Say the numbers of the frames that are seen."""
    return [f"frames {levels_of(clip.frames)}" for clip in clips]


def caption(
    folder: Path, describe: Any = levels, share: Share = ALL, model: str = "a", **changes: Any
) -> CaptionReport:
    clips = open_source(folder, READING).clips
    settings = replace(SETTINGS, **changes)
    return caption_clips(clips, folder, settings, share, {"model": model}, describe, progress=False)


def published(folder: Path) -> dict[str, list[str]]:
    return json.loads((folder / "captions-generated.json").read_text())


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    folder = clips_folder(tmp_path / "raw", clips=5)
    (folder / "captions.json").write_text(json.dumps({"clip1.mp4": ["by hand"]}))
    return folder


def test_what_has_no_caption_gets_one_from_its_own_frames(bare: Path, tmp_path: Path) -> None:
    report = caption(bare)
    assert (report.clips, report.made, report.had, report.kept) == (5, 4, 1, 0)
    assert published(bare) == {f"clip{n}.mp4": ["frames [2, 6, 10]"] for n in (0, 2, 3, 4)}
    by_id = {clip.clip_id: clip.captions for clip in open_source(bare, READING).clips}
    assert by_id["clip1"] == ("by hand",)
    assert by_id["clip4"] == ("frames [2, 6, 10]",)
    (line,) = [row for row in rows(bare) if row["clip"] == "clip3"]
    assert line["made_with"] == {"model": "a", "show": {"frames": 3, "long_side": 64}}
    assert line["frames"] == [2, 6, 10]
    # Of a source video, the frames that the clip's cameras belong to.
    sources = sources_folder(tmp_path / "sources")
    (sources / "captions.json").unlink()
    caption(sources)
    assert published(sources) == {"early.mp4": ["frames [6, 10, 13]"], "later.mp4": ["frames [21, 25, 28]"]}


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((folder / FOLDER).glob("*.jsonl")) for line in path.open()]


def test_a_killed_run_goes_on_where_it_was(bare: Path) -> None:
    class Killed(BaseException):
        pass

    def dies(clips: Sequence[ShownClip]) -> list[str]:
        if clips[0].clip_id != "clip0":
            raise Killed
        return levels(clips)

    with pytest.raises(Killed):
        caption(bare, dies)
    assert len(published(bare)) == 2, "what was made is of use although the run failed"
    (bare / "captions-generated.json").unlink()  # kill -9 writes no such file, and tears a line
    with (bare / FOLDER / "0-of-1.jsonl").open("a") as file:
        file.write('{"clip": "clip3", "capt')
    asked: list[str] = []

    def remembers(clips: Sequence[ShownClip]) -> list[str]:
        asked.extend(clip.clip_id for clip in clips)
        return levels(clips)

    report = caption(bare, remembers)
    assert asked == ["clip3", "clip4"]
    assert (report.made, report.kept, report.had) == (2, 2, 1)
    assert len(published(bare)) == len(rows(bare)) == 4
    assert caption(bare, remembers).made == 0
    assert len(asked) == 2


def test_a_bad_clip_is_reported_and_stops_nothing(bare: Path) -> None:
    (bare / "video_clips" / "clip0.mp4").write_bytes(b"no video")
    edit_line(bare / "pose_files" / "clip2.txt", 4, "0.500000000", "nan")

    def refuses(clips: Sequence[ShownClip]) -> list[str]:
        if any(clip.clip_id == "clip3" for clip in clips):
            raise ValueError("too much\nmemory")
        return ["  "] * len(clips) if clips[0].clip_id == "clip4" else levels(clips)

    report = caption(bare, refuses)
    assert report.made == 0
    assert {reason: list(messages) for reason, messages in report.failed.items()} == {
        "video_unreadable": ["clip0"],
        "pose_not_finite": ["clip2"],
        "not_described": ["clip3"],
        "empty_caption": ["clip4"],
    }
    written = json.loads((bare / "caption_report.json").read_text())
    assert written["failed_by_reason"]["not_described"] == {"clip3": "too much memory"}
    assert "  empty_caption: 1, first: clip clip4: the model said nothing" in report.lines()
    report = caption(bare)
    assert (report.made, sorted(report.failed)) == (2, ["pose_not_finite", "video_unreadable"])


def test_another_model_redoes_only_what_it_did_not_make(bare: Path) -> None:
    caption(bare, limit=3)
    assert caption(bare, model="b").kept == 3
    assert {row["made_with"]["model"] for row in rows(bare)} == {"a", "b"}
    report = caption(bare, lambda clips: ["better"] * len(clips), model="b", redo=True)
    assert (report.made, report.kept) == (3, 1)
    assert sorted(texts[0] for texts in published(bare).values()) == ["better"] * 3 + ["frames [2, 6, 10]"]
    assert caption(bare, model="b", redo=True).made == 0


def test_tasks_share_the_clips_and_the_file(bare: Path) -> None:
    reports = [caption(bare, share=Share(task=task, tasks=2)) for task in (0, 1)]
    assert [report.clips for report in reports] == [3, 2]
    assert sorted(published(bare)) == [f"clip{n}.mp4" for n in (0, 2, 3, 4)]
    assert caption(bare).kept == 4, "another division finds what was made"
    with Journal(bare, ALL), pytest.raises(ValueError, match="another run is writing it"):
        caption(bare)
    with (bare / FOLDER / "0-of-2.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(ValueError, match=r"0-of-2.jsonl line \d: damaged"):
        caption(bare)


def test_squashed_pixels_are_shown_square(tmp_path: Path) -> None:
    folder = clips_folder(tmp_path / "raw", clips=1)
    poses = folder / "pose_files" / "clip0.txt"
    poses.write_text(poses.read_text().replace(" 0.888888889 ", " 1.333333333 "))
    (clip,) = open_source(folder, READING).clips
    shown = show(clip, FrameChoice(frames=20, long_side=48))
    assert isinstance(shown, ShownClip)
    assert shown.frames.shape == (12, 18, 48, 3), "12 frames of 96 x 36 in truth"
