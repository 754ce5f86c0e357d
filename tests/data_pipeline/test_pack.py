"""Packing: what is stored, what is refused, and that nothing is half-written."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import webdataset

from cami2v.video import encode_mp4, probe, read_frames, write_mp4
from data_pipeline.index import build_index, read_index, read_sample
from data_pipeline.manifest import read_manifest
from tests.data_pipeline.raw_folders import (
    SETTINGS,
    clips_folder,
    edit_line,
    grey_frames,
    levels_of,
    pack_quietly,
    sources_folder,
    write_poses,
)


def samples_of(folder: Path) -> dict[str, dict[str, bytes]]:
    return {
        sample.key: read_sample(shard, sample) for shard in sorted(folder.glob("*.tar")) for sample in read_index(shard)
    }


def test_cut_clips_become_samples(tmp_path: Path) -> None:
    result = pack_quietly(clips_folder(tmp_path / "raw"), tmp_path / "set")
    manifest = read_manifest(tmp_path / "set")
    assert manifest == result.manifest
    assert sum(split.samples for split in manifest.splits.values()) == 6
    assert set(manifest.splits) == {"train", "test"}
    assert not set(manifest.splits["train"].sources) & set(manifest.splits["test"].sources)
    samples = samples_of(tmp_path / "set")
    assert set(samples) == {f"clip{number}" for number in range(6)}
    members = samples["clip3"]
    about = json.loads(members["json"])
    assert about["captions"] == ["room 3", "place 3"]
    assert about["source_id"] == "src3"
    assert about["address"] == "https://www.youtube.com/watch?v=src3"
    assert about["pixel_aspect"] == 1.0
    assert about["packed"] == {"height": 36, "width": 64, "frames": 12, "frames_per_second": 30.0}
    assert about["sha256"]["mp4"] == hashlib.sha256(members["mp4"]).hexdigest()
    source = (tmp_path / "raw" / "video_clips" / "clip3.mp4").read_bytes()
    assert about["provenance"]["video_sha256"] == hashlib.sha256(source).hexdigest()
    assert levels_of(read_frames(members["mp4"])) == list(range(12))
    arrays = np.load(io.BytesIO(members["cameras.npz"]))
    assert arrays["world_to_camera"].shape == (12, 3, 4)
    assert arrays["world_to_camera"].dtype == np.float64
    assert arrays["intrinsics_normalized"].shape == (12, 4)
    assert arrays["timestamps_microseconds"].dtype == np.int64
    assert "metric_scale" not in arrays


def test_source_videos_are_cut_by_time(tmp_path: Path) -> None:
    result = pack_quietly(sources_folder(tmp_path / "raw", late_microseconds=10_000), tmp_path / "set")
    samples = samples_of(tmp_path / "set")
    assert levels_of(read_frames(samples["early"]["mp4"])) == list(range(5, 15))
    assert levels_of(read_frames(samples["later"]["mp4"])) == list(range(20, 30))
    offsets = json.loads(samples["later"]["json"])["timestamp_offsets_microseconds"]
    np.testing.assert_allclose(offsets, -10_000, atol=50)
    assert result.report is not None
    assert set(result.report.far_timestamps_microseconds) == {"early", "later"}


def test_any_webdataset_reader_reads_a_shard(tmp_path: Path) -> None:
    pack_quietly(clips_folder(tmp_path / "raw", clips=3), tmp_path / "set", min_shards=1, splits={"train": 1.0})
    shards = [str(path) for path in sorted((tmp_path / "set").glob("*.tar"))]
    assert len(shards) == 1
    seen = {sample["__key__"]: sample for sample in webdataset.WebDataset(shards, shardshuffle=False)}
    assert set(seen) == {"clip0", "clip1", "clip2"}
    assert {"mp4", "cameras.npz", "json"} <= set(seen["clip0"])
    assert json.loads(seen["clip1"]["json"])["clip_id"] == "clip1"


def test_equal_input_gives_equal_bytes_on_any_number_of_processes(tmp_path: Path) -> None:
    clips_folder(tmp_path / "raw")
    pack_quietly(tmp_path / "raw", tmp_path / "one")
    pack_quietly(tmp_path / "raw", tmp_path / "two", processes=2)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_an_equal_set_is_kept_another_refused(tmp_path: Path) -> None:
    clips_folder(tmp_path / "raw")
    pack_quietly(tmp_path / "raw", tmp_path / "set")
    before = (tmp_path / "set" / "manifest.json").stat().st_mtime_ns
    assert pack_quietly(tmp_path / "raw", tmp_path / "set").report is None
    assert (tmp_path / "set" / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"made from other clips or with other settings.*pack.overwrite=true"):
        pack_quietly(tmp_path / "raw", tmp_path / "set", seed=1)
    pack_quietly(tmp_path / "raw", tmp_path / "set", seed=1, overwrite=True)
    assert read_manifest(tmp_path / "set").seed == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="exists and is not a shard set"):
        pack_quietly(tmp_path / "raw", tmp_path / "other", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "raw", "set"]


def test_large_frames_shrink_and_lose_an_odd_column_with_their_geometry_kept(tmp_path: Path) -> None:
    clips_folder(tmp_path / "raw", clips=1)
    frame_format = replace(SETTINGS.frame_format, short_side=22)
    pack_quietly(tmp_path / "raw", tmp_path / "set", frame_format=frame_format)
    members = samples_of(tmp_path / "set")["clip0"]
    about = json.loads(members["json"])
    # 36x64 becomes 22x39, of which 38 columns stay.
    assert (about["packed"]["height"], about["packed"]["width"]) == (22, 38)
    assert about["pixel_aspect"] == 1
    fx, fy, cx, cy = np.load(io.BytesIO(members["cameras.npz"]))["intrinsics_normalized"][0] * [38, 22, 38, 22]
    assert (fx, fy, cx, cy) == pytest.approx((0.5 * 39, 0.5 * 64 / 36 * 22, 0.5 * 39, 0.5 * 22))
    assert probe(members["mp4"]).width == 38


def test_metric_scales_are_stored_with_every_policy(tmp_path: Path) -> None:
    clips_folder(tmp_path / "raw", clips=2)
    (tmp_path / "raw" / "metric_scale.json").write_text(json.dumps({"clip0": 1.5, "clip1": [2.0] * 12}))
    pack_quietly(tmp_path / "raw", tmp_path / "set")
    manifest = read_manifest(tmp_path / "set")
    assert (manifest.scale_policy, manifest.is_metric) == ("relative", True)
    assert manifest.metric_scale == {"given": 2, "estimated": 0, "without": 0}
    arrays = np.load(io.BytesIO(samples_of(tmp_path / "set")["clip0"]["cameras.npz"]))
    assert arrays["metric_scale"].dtype == np.float32
    np.testing.assert_array_equal(arrays["metric_scale"], np.full(12, 1.5, np.float32))


def test_a_metric_set_refuses_clips_without_a_scale(tmp_path: Path) -> None:
    clips_folder(tmp_path / "raw", clips=4)
    given = dict.fromkeys(("clip0", "clip1", "clip3"), 1.5)
    (tmp_path / "raw" / "metric_scale.json").write_text(json.dumps(given))
    missing = r"clip2.txt: pack.scale_policy=metric, but the metric scale of clip clip2 is not known; estimate it: "
    with pytest.raises(ValueError, match=missing + r"cami2v data scale source=.*raw \[metric_scale_missing; pack.on"):
        pack_quietly(tmp_path / "raw", tmp_path / "set", scale_policy="metric")
    result = pack_quietly(tmp_path / "raw", tmp_path / "set", scale_policy="metric", on_bad_clip="drop")
    assert result.report is not None
    assert {reason: set(clips) for reason, clips in result.report.dropped.items()} == {
        "metric_scale_missing": {"clip2"}
    }
    manifest = read_manifest(tmp_path / "set")
    assert manifest.scale_policy == "metric"
    assert manifest.metric_scale == {"given": 3, "estimated": 0, "without": 0}
    with pytest.raises(ValueError, match="made from other clips or with other settings"):
        pack_quietly(tmp_path / "raw", tmp_path / "set", on_bad_clip="drop")


def break_clip(raw: Path, how: str) -> None:
    poses, video = raw / "pose_files" / "clip2.txt", raw / "video_clips" / "clip2.mp4"
    if how == "video_missing":
        video.unlink()
    elif how == "video_unreadable":
        video.write_bytes(b"nothing")
    elif how == "frame_count_mismatch":
        write_mp4(video, grey_frames(2, range(11)), 30)
    elif how == "pose_not_finite":
        edit_line(poses, 6, "0.500000000", "nan")
    elif how == "caption_missing":
        captions = json.loads((raw / "captions.json").read_text())
        del captions["clip2.mp4"]
        (raw / "captions.json").write_text(json.dumps(captions))
    elif how == "too_short":
        write_poses(poses, 3, source="src2")
        write_mp4(video, grey_frames(2, range(3)), 30)


FAULTS = {
    "video_missing": r"clip2.mp4: no such video \(needed by .*clip2.txt\)",
    "video_unreadable": r"clip2.mp4: not a readable video",
    "frame_count_mismatch": r"clip2.mp4: 11 frames, but .*clip2.txt has 12 cameras",
    "pose_not_finite": r"clip2.txt line 6: the camera has a NaN",
    "caption_missing": r"clip clip2: no caption",
    "too_short": r"clip2.txt: 3 frames, fewer than pack.min_frames=4",
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_bad_clip_stops_or_is_dropped_and_counted(tmp_path: Path, how: str) -> None:
    raw = clips_folder(tmp_path / "raw")
    break_clip(raw, how)
    with pytest.raises(ValueError, match=FAULTS[how]) as caught:
        pack_quietly(raw, tmp_path / "set")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()

    result = pack_quietly(raw, tmp_path / "set", on_bad_clip="drop")
    assert set(samples_of(tmp_path / "set")) == {"clip0", "clip1", "clip3", "clip4", "clip5"}
    written = json.loads((tmp_path / "set" / "pack_report.json").read_text())
    assert (written["clips_found"], written["clips_packed"], written["clips_dropped"]) == (6, 5, 1)
    assert list(written["dropped_by_reason"][how]["messages"]) == ["clip2"]
    assert result.report is not None
    assert f"  {how}: 1 (clip2)" in result.report.lines()


def test_damage_inside_a_video_drops_the_clip_while_encoding(tmp_path: Path) -> None:
    raw = sources_folder(tmp_path / "raw")
    data = encode_mp4(grey_frames(0, range(40)), fps=30)
    moov = data.index(b"moov") - 4
    # All frame data gone, the table of contents intact: it probes well and decodes not at all.
    (raw / "videos" / "srcA.mp4").write_bytes(data[:48] + bytes(moov - 48) + data[moov:])
    with pytest.raises(ValueError, match="srcA.mp4"):
        pack_quietly(raw, tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_too_many_bad_clips_stop_dropping(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw")
    for number in range(3):
        (raw / "video_clips" / f"clip{number}.mp4").unlink()
    with pytest.raises(ValueError, match=r"3 of 6 clips would be left out \(video_missing 3\).*max_drop_rate=0.4"):
        pack_quietly(raw, tmp_path / "set", on_bad_clip="drop", max_drop_rate=0.4)
    shutil.rmtree(raw / "video_clips")
    (raw / "video_clips").mkdir()
    with pytest.raises(ValueError, match="6 of 6 clips would be left out"):
        pack_quietly(raw, tmp_path / "set", on_bad_clip="drop", max_drop_rate=1.0)
    assert not (tmp_path / "set").exists()


def test_splits_of_the_folder_may_not_share_a_source(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=4, splits=["train", "train", "test", "test"])
    pack_quietly(raw, tmp_path / "set")
    assert set(read_manifest(tmp_path / "set").splits["test"].sources) == {"src2", "src3"}
    write_poses(raw / "pose_files" / "test" / "clip3.txt", 12, source="src0")
    with pytest.raises(ValueError, match=r"splits test and train share 1 source videos \(src0\)"):
        pack_quietly(raw, tmp_path / "set2")


def test_clips_spread_over_shards(tmp_path: Path) -> None:
    clips_folder(tmp_path / "raw")
    whole = {"splits": {"train": 1.0}}
    pack_quietly(tmp_path / "raw", tmp_path / "a", samples_per_shard=2, min_shards=1, **whole)
    assert [len(build_index(path)) for path in sorted((tmp_path / "a").glob("*.tar"))] == [2, 2, 2]
    pack_quietly(tmp_path / "raw", tmp_path / "b", min_shards=4, **whole)
    assert sorted(len(build_index(path)) for path in (tmp_path / "b").glob("*.tar")) == [1, 1, 2, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"train": 0.5, "test": 0.4}}, "must sum to 1"),
        ({"samples_per_shard": 0}, "pack.samples_per_shard=0"),
        ({"max_drop_rate": 1.5}, "pack.max_drop_rate=1.5"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_quietly(clips_folder(tmp_path / "raw", clips=1), tmp_path / "set", **changes)
