"""Which frame belongs to which camera; what shape pixels have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cami2v.video import VideoInfo
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.layouts.clip import Layout
from data_pipeline.realestate10k.inspect import InspectedClip, inspect_clip, match_timestamps, pixel_aspect
from data_pipeline.realestate10k.layout import find_clips
from data_pipeline.realestate10k.parse import parse_pose_file
from tests.data_pipeline.raw_folders import clips_folder, sources_folder, write_poses


def inspect_named(folder: Path, clip_id: str) -> InspectedClip:
    dataset = find_clips(folder)
    files = next(clip for clip in dataset.clips if clip.clip_id == clip_id)
    return inspect_clip(files, min_frames=4, default_caption=None)


def test_source_videos_match_by_time(tmp_path: Path) -> None:
    clip = inspect_named(sources_folder(tmp_path, late_microseconds=5000), "later")
    assert clip.frame_indices.tolist() == list(range(20, 30))
    np.testing.assert_allclose(clip.offsets_microseconds, -5000, atol=50)
    assert clip.frames_per_second == pytest.approx(30, rel=1e-3)
    assert (clip.source_id, clip.captions, clip.files.split) == ("srcA", ("b",), "train")


def test_every_other_camera_halves_the_rate(tmp_path: Path) -> None:
    sources_folder(tmp_path)
    write_poses(tmp_path / "pose_files" / "train" / "later.txt", 8, source="srcA", first_time=666667, step=2e6 / 30)
    clip = inspect_named(tmp_path, "later")
    assert clip.frame_indices.tolist() == list(range(20, 36, 2))
    assert clip.frames_per_second == pytest.approx(15, rel=1e-3)


def test_a_video_with_fewer_frames_than_annotated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadClip, match="cameras 0 and 1 fall on the same frame") as caught:
        inspect_named(sources_folder(tmp_path, fps=10), "early")
    assert caught.value.reason is Reason.FRAME_COUNT_MISMATCH


def test_annotations_beyond_the_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadClip, match="camera 0 is at 60.667 s, but the nearest frame") as caught:
        inspect_named(sources_folder(tmp_path, late_microseconds=60_000_000), "later")
    assert caught.value.reason is Reason.FRAME_NOT_FOUND


def test_nearest_is_nearest(tmp_path: Path) -> None:
    write_poses(tmp_path / "a.txt", 5, source="abc", first_time=10_000, step=40_000)
    track = parse_pose_file(tmp_path / "a.txt")
    times = np.sort(np.random.default_rng(0).uniform(-0.02, 0.25, 40))
    info = VideoInfo(
        frames=40,
        height=4,
        width=4,
        frames_per_second=10.0,
        rotation_degrees=0,
        pixel_aspect=1.0,
        timestamps_seconds=times,
    )
    indices, offsets = match_timestamps(track, info, "a.txt", "v.mp4")
    distances = np.abs(times[None] * 1e6 - track.timestamps_microseconds[:, None])
    np.testing.assert_array_equal(indices, distances.argmin(axis=1))
    np.testing.assert_allclose(np.abs(offsets), distances.min(axis=1), atol=1)


def test_cut_clips_match_one_to_one(tmp_path: Path) -> None:
    clips_folder(tmp_path, clips=1)
    assert inspect_named(tmp_path, "clip0").frame_indices.tolist() == list(range(12))
    write_poses(tmp_path / "pose_files" / "clip0.txt", 11, source="src0")
    with pytest.raises(BadClip, match=r"clip0.mp4: 12 frames, but .*clip0.txt has 11 cameras"):
        inspect_named(tmp_path, "clip0")


def test_pixel_aspect() -> None:
    square = np.array([[0.5, 0.5 * 640 / 360, 0.5, 0.5]] * 3)
    assert pixel_aspect(square, 360, 640, "a") == 1.0
    assert pixel_aspect(square * [1, 1.008, 1, 1], 360, 640, "a") == 1.0
    assert pixel_aspect(square, 256, 384, "a") == pytest.approx(640 / 360 / 1.5)
    changing = square.copy()
    changing[2, 1] *= 1.05
    for wrong, height, width in ((changing, 360, 640), (square, 640, 360)):
        with pytest.raises(BadClip, match="times as wide as high"):
            pixel_aspect(wrong, height, width, "a")


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        find_clips(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="found neither"):
        find_clips(tmp_path)
    sources_folder(tmp_path)
    assert find_clips(tmp_path).layout is Layout.SOURCE_VIDEOS
    (tmp_path / "video_clips").mkdir()
    with pytest.raises(ValueError, match="found both"):
        find_clips(tmp_path)


def test_clip_ids_are_unique_and_usable_as_keys(tmp_path: Path) -> None:
    clips_folder(tmp_path, clips=2, splits=["train", "test"])
    write_poses(tmp_path / "pose_files" / "test" / "clip0.txt", 12, source="src0")
    with pytest.raises(ValueError, match="first clip0; give each clip one split"):
        find_clips(tmp_path)
    (tmp_path / "pose_files" / "test" / "clip0.txt").rename(tmp_path / "pose_files" / "test" / "clip.0.txt")
    with pytest.raises(ValueError, match="a clip id may have"):
        find_clips(tmp_path)
