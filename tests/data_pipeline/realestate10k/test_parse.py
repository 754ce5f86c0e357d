"""Camera files, captions, metric scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.realestate10k.parse import parse_captions, parse_metric_scale, parse_pose_file, source_id_of
from tests.data_pipeline.raw_folders import edit_line, write_poses


def test_parses_the_dataset_format(tmp_path: Path) -> None:
    write_poses(tmp_path / "a.txt", 5, source="abc", first_time=158692025)
    track = parse_pose_file(tmp_path / "a.txt")
    assert (track.source_id, track.caption, track.video_path) == ("abc", None, None)
    assert track.timestamps_microseconds[:2].tolist() == [158692025, 158725358]
    np.testing.assert_allclose(track.intrinsics_normalized[0], [0.5, 0.5 * 64 / 36, 0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(track.world_to_camera[4, :, 3], [0.4, 0.02, 0.3])
    np.testing.assert_allclose(track.world_to_camera[4, 0, :3], [np.cos(0.08), 0, np.sin(0.08)], atol=1e-8)


def test_parses_three_header_lines(tmp_path: Path) -> None:
    write_poses(tmp_path / "a.txt", 5, source="abc", headers=["video_clips/x/a.mp4", "3 chairs in a room"])
    track = parse_pose_file(tmp_path / "a.txt")
    assert (track.video_path, track.caption, len(track.world_to_camera)) == (
        "video_clips/x/a.mp4",
        "3 chairs in a room",
        5,
    )


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("https://www.youtube.com/watch?v=QShWPZxTDoE", "QShWPZxTDoE"),
        ("https://www.youtube.com/watch?t=3&v=-aB_1", "-aB_1"),
        ("https://youtu.be/QShWPZxTDoE", "QShWPZxTDoE"),
        ("file:///data/walk.mp4", "walk"),
        ("walk-07", "walk-07"),
    ],
)
def test_source_id(address: str, source: str) -> None:
    assert source_id_of(address, Path("a.txt")) == source


@pytest.mark.parametrize(
    ("line", "old", "new", "reason", "message"),
    [
        (4, " 0.500000000", " nan", Reason.POSE_NOT_FINITE, "line 4: the camera has a NaN"),
        (2, " 0.300000000", " inf", Reason.POSE_NOT_FINITE, "line 2"),
        (3, " 0.300000000", "", Reason.POSE_FILE_MALFORMED, "line 3: 18 fields, expected 19"),
        (3, " 0.300000000", " here", Reason.POSE_FILE_MALFORMED, "line 3: could not convert"),
        (2, " 1.000000000", " 1.100000000", Reason.ROTATION_NOT_RIGID, "line 2: the 3x3 part is no rotation"),
        (2, " 1.000000000", " -1.000000000", Reason.ROTATION_NOT_RIGID, "determinant -1"),
        (5, " 0.500000000", " 320.0", Reason.INTRINSICS_IMPLAUSIBLE, "line 5: fx fy cx cy = 320"),
        (3, "33333 ", "0 ", Reason.TIMESTAMPS_NOT_INCREASING, "line 3: its timestamp is not after"),
    ],
)
def test_refuses_bad_cameras(tmp_path: Path, line: int, old: str, new: str, reason: Reason, message: str) -> None:
    path = tmp_path / "a.txt"
    write_poses(path, 5, source="abc")
    edit_line(path, line, old, new)
    with pytest.raises(BadClip, match=message) as caught:
        parse_pose_file(path)
    assert caught.value.reason is reason
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "https://x.y/watch?v=a\n", "https://x.y/watch?v=a\none\ntwo\n"])
def test_refuses_files_without_cameras(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(BadClip, match="a.txt: "):
        parse_pose_file(tmp_path / "a.txt")


def test_captions(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text('{"a.mp4": ["one", " two "], "b": "three"}')
    assert parse_captions(path) == {"a": ("one", "two"), "b": ("three",)}
    for wrong in ('{"a.mp4": 3}', '["a"]', "{"):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="captions.json: "):
            parse_captions(path)


def test_metric_scale() -> None:
    np.testing.assert_array_equal(parse_metric_scale(2, 3, "a"), [2, 2, 2])
    np.testing.assert_array_equal(parse_metric_scale([1, 2, 3], 3, "a"), [1, 2, 3])
    for wrong in ([1, 2], -1, float("nan"), "big", None):
        with pytest.raises(BadClip, match="metric scale of clip a"):
            parse_metric_scale(wrong, 3, "a")
