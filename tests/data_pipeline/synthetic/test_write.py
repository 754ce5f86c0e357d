"""The folder is one a RealEstate10K user has, and its files agree with each other."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from cami2v.video import probe, read_frames
from data_pipeline.layouts.frames import VideoFile
from data_pipeline.realestate10k.layout import find_clips
from data_pipeline.synthetic import write
from data_pipeline.synthetic.reprojection import warp
from data_pipeline.synthetic.world import plan_sources
from data_pipeline.synthetic.write import write_raw_dataset
from tests.data_pipeline.synthetic.worlds import small_world

WORLD = small_world()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "world"
    seen = []
    write_raw_dataset(path, WORLD, 2, lambda done, total: seen.append((done, total)))
    total = seen[-1][1]
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    return path


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_layout(folder):
    expected = {"captions.json", "metric_scale.json", "world.json"}
    for source in plan_sources(WORLD):
        expected.add(f"videos/{source.source_id}.mp4")
        for clip in source.clips:
            expected |= {f"pose_files/{source.split}/{clip.clip_id}.txt", f"depth/{source.split}/{clip.clip_id}.npz"}
    assert files(folder) == expected
    captions = json.loads((folder / "captions.json").read_text())
    assert set(captions) == {f"{clip.clip_id}.mp4" for source in plan_sources(WORLD) for clip in source.clips}
    assert all(len(texts) == 1 and texts[0].startswith("a ") for texts in captions.values())


def test_camera_files_are_realestate10k(folder):
    lines = next(iter(sorted(folder.glob("pose_files/train/*.txt")))).read_text().splitlines()
    assert lines[0].startswith("https://synthetic.invalid/watch?v=synthetic-3-train-")
    assert len(lines) == 1 + WORLD.frames_per_clip
    fields = lines[1].split()
    assert len(fields) == 19
    assert fields[0].isdigit()
    assert all(len(field.split(".")[1]) == 9 for field in fields[1:])
    fx, fy = float(fields[1]), float(fields[2])
    assert fx * WORLD.width == pytest.approx(fy * WORLD.height)
    assert 64 <= np.degrees(2 * np.arctan(0.5 / fx)) <= 72


def test_parser_finds_every_clip_and_splits_are_source_disjoint(folder):
    dataset = find_clips(folder)
    assert len(dataset.clips) == 10
    sources = defaultdict(set)
    times = defaultdict(list)
    for clip in dataset.clips:
        track = clip.track()
        assert clip.captions
        assert clip.metric_scale > 0
        source = clip.frame_source(track)
        assert isinstance(source, VideoFile)
        assert source.path.is_file()
        sources[clip.split].add(track.source_id)
        times[track.source_id].append(track.timestamps_microseconds)
    assert sources["train"].isdisjoint(sources["test"] | sources["validation"])
    assert sources["test"].isdisjoint(sources["validation"])
    for source_id, clips in times.items():
        decoded = probe(folder / "videos" / f"{source_id}.mp4").timestamps_seconds * 1e6
        every = np.sort(np.concatenate(clips))
        assert len(np.unique(every)) == len(every)
        assert np.abs(decoded[:, None] - every[None]).min(axis=0).max() < 1000
    assert any(clip[0] > 0 for clips in times.values() for clip in clips[:1])


def test_frames_depths_and_camera_files_agree(folder):
    """Decode the video at the written times and warp by the written poses, in the source's own unit."""
    errors, still = [], []
    for clip in find_clips(folder).clips:
        track = clip.track()
        numbers = np.rint(track.timestamps_microseconds * WORLD.frames_per_second / 1e6).astype(int)
        frames = read_frames(folder / "videos" / f"{track.source_id}.mp4", numbers.tolist())
        stored = np.load(folder / "depth" / clip.split / f"{clip.clip_id}.npz")["depth_millimetres"]
        assert stored.shape == frames.shape[:3]
        depths = (stored / 1000 / clip.metric_scale).astype(np.float32)
        poses = np.concatenate([track.world_to_camera, np.tile([[[0.0, 0, 0, 1]]], (len(frames), 1, 1))], axis=1)
        intrinsics = track.intrinsics_normalized[0] * np.tile([WORLD.width, WORLD.height], 2)
        relative = poses[3] @ np.linalg.inv(poses[0])
        warped, seen = warp(frames[0], depths[0], depths[3], relative, intrinsics)
        errors.append(np.abs(warped - frames[3])[seen].mean())
        still.append(np.abs(frames[0].astype(float) - frames[3])[seen].mean())
    assert np.mean(errors) < 5
    assert max(errors) < 8
    assert np.mean(still) > 3 * np.mean(errors)


def test_same_seed_same_pixels_whatever_the_processes(folder, tmp_path):
    write_raw_dataset(tmp_path / "again", WORLD, 1, None)
    assert files(tmp_path / "again") == files(folder)
    for name in files(folder):
        if name.endswith((".txt", ".json")):
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
        elif name.endswith(".mp4"):
            np.testing.assert_array_equal(read_frames(tmp_path / "again" / name), read_frames(folder / name))
        else:
            pair = [np.load(root / name)["depth_millimetres"] for root in (folder, tmp_path / "again")]
            np.testing.assert_array_equal(*pair)


def test_complete_folder_is_reused_and_others_refused(folder, tmp_path, monkeypatch):
    before = {name: (folder / name).stat().st_mtime_ns for name in files(folder)}
    monkeypatch.setattr(write, "render_frame", None)
    write_raw_dataset(folder, WORLD, 1, None)
    assert before == {name: (folder / name).stat().st_mtime_ns for name in files(folder)}
    with pytest.raises(ValueError, match=r"other settings \(crf, seed\)"):
        write_raw_dataset(folder, replace(WORLD, seed=4, crf=13), 1, None)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not a synthetic world"):
        write_raw_dataset(tmp_path, WORLD, 1, None)
    assert files(tmp_path) == {"notes.txt"}
    with pytest.raises(ValueError, match="processes=0"):
        write_raw_dataset(tmp_path / "new", WORLD, 0, None)


def test_interrupted_world_is_completed(tmp_path, monkeypatch):
    world = small_world(rooms=1, sources={"train": 2}, clips_per_source=1, depth=False)
    real, rendered = write.render_frame, []

    def interrupted(*arguments):
        rendered.append(1)
        if len(rendered) == 7:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(write, "render_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_raw_dataset(tmp_path / "raw", world, 1, None)
    assert not json.loads((tmp_path / "raw" / "world.json").read_text())["complete"]
    assert len(list(tmp_path.glob("raw/videos/*.mp4"))) == 1
    write_raw_dataset(tmp_path / "raw", world, 1, None)
    assert json.loads((tmp_path / "raw" / "world.json").read_text())["complete"]
    assert len(list(tmp_path.glob("raw/videos/*.mp4"))) == 2
    assert "metric_scale.json" not in files(tmp_path / "raw")
