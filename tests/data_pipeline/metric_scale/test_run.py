"""From poses of arbitrary units and true depth to metres in a batch; bad clips, restarts, stale estimates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline.loader import ClipLoader
from data_pipeline.manifest import read_manifest
from data_pipeline.metric_scale.depth import DepthFrames, DepthMaps, DepthSource, StoredDepthMaps
from data_pipeline.metric_scale.run import ScaleReport, estimate_scales
from data_pipeline.metric_scale.side_file import FILE_NAME, read_scale_file
from tests.data_pipeline.metric_scale.metric_worlds import FRAMES, world_without_scales
from tests.data_pipeline.metric_scale.test_estimate import settings
from tests.data_pipeline.raw_folders import READING, pack_quietly

WITHIN = 0.01
"""Of the true scale; what is measured is in docs/metric-scale.md."""


class World:
    """The rendered world, its true scales, and the estimates of two processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.truth = world_without_scales(folder)
        self.raw, self.depth = folder / "raw", folder / "depth"
        self.report = scale(self.raw, StoredDepthMaps(self.depth), processes=2)
        self.estimates = (self.raw / FILE_NAME).read_bytes()

    def copy(self, folder: Path, *, estimates: bool = False) -> Path:
        copied = Path(shutil.copytree(self.raw, folder))
        if not estimates:
            (copied / FILE_NAME).unlink()
        return copied


def scale(source: Path, depth: DepthSource, output: Path | None = None, **changes: Any) -> ScaleReport:
    return estimate_scales(
        source, output or source / FILE_NAME, settings(**{"depth_frames": 1, **changes}), READING, depth, progress=False
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("metric"))


class Counting(DepthSource):
    """Counts the clips it is asked about, and may end the process at one of them."""

    def __init__(self, depth: DepthSource, stop_at: int | None = None) -> None:
        self.depth, self.stop_at = depth, stop_at
        self.asked: list[str] = []

    def description(self) -> Mapping[str, Any]:
        return self.depth.description()

    def stamp(self, clip_id: str, split: str | None) -> str:
        return self.depth.stamp(clip_id, split)

    def __call__(self, frames: DepthFrames) -> DepthMaps:
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(frames.clip_id)
        return self.depth(frames)


def test_arbitrary_units_become_metres(world: World) -> None:
    assert (len(world.report.scaled), world.report.unscaled, world.report.given) == (6, {}, 0)
    units = set(world.truth.values())
    assert len(units) == 3
    assert max(units) > 3 * min(units)
    for clip_id, row in world.report.scaled.items():
        assert row["metres_per_unit"] == pytest.approx(world.truth[clip_id], rel=WITHIN)
        assert row["points"] > 60
        assert row["spread"] < 0.05
        assert row["inlier_share"] > 0.9


def test_packed_clips_are_loaded_in_metres(world: World, tmp_path: Path) -> None:
    pack_quietly(world.raw, tmp_path / "set", scale_policy="metric", min_shards=1)
    manifest = read_manifest(tmp_path / "set")
    procedure = json.loads(world.estimates)["procedure"]
    assert (manifest.scale_policy, manifest.is_metric) == ("metric", True)
    assert manifest.metric_scale == {"given": 0, "estimated": 6, "without": 0, "procedure": procedure}
    assert procedure["depth"] == {"kind": "stored depth maps", "folder": "depth"}
    assert procedure["settings"]["min_parallax_degrees"] == 1.0
    clips = ClipLoader(
        shards=str(tmp_path / "set"), split="train", frames=FRAMES, resolution=[64, 64], frame_stride=1, num_workers=0,
        scale_policy=None, shuffle_window_shards=1, shared_shards="allow",
    )  # fmt: skip
    assert clips.settings.scale_policy is ScalePolicy.METRIC
    seen = 0
    for batch in clips.fixed(count=4, rank=0, world_size=1, seed=0):
        cameras = batch.cameras
        translation = cameras.translation_scale[..., None] * cameras.world_to_camera[..., 3]
        for clip_id, metres, units in zip(batch.clip_ids, translation, cameras.world_to_camera[..., 3], strict=True):
            np.testing.assert_allclose(metres, units * world.truth[clip_id], rtol=WITHIN)
            seen += 1
    assert seen == 4


def test_a_packed_set_gives_estimates_that_its_raw_folder_takes(world: World, tmp_path: Path) -> None:
    raw = world.copy(tmp_path / "raw")
    pack_quietly(raw, tmp_path / "set", min_shards=1)
    assert not read_manifest(tmp_path / "set").is_metric
    report = scale(tmp_path / "set", StoredDepthMaps(world.depth), tmp_path / "raw" / FILE_NAME, depth_frames=3)
    assert {row["cameras_sha256"] for row in report.scaled.values()} == {
        row["cameras_sha256"] for row in world.report.scaled.values()
    }
    for clip_id, row in report.scaled.items():
        assert row["metres_per_unit"] == pytest.approx(world.truth[clip_id], rel=WITHIN)
        assert set(row["frame_scales"]) == {"0", "4", "7"}
    pack_quietly(raw, tmp_path / "metric", min_shards=1, scale_policy="metric")
    again = scale(tmp_path / "metric", StoredDepthMaps(world.depth), tmp_path / "other" / FILE_NAME)
    assert (again.given, again.scaled) == (6, {})
    shard = next((tmp_path / "metric").glob("test-*.tar"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 4] ^= 255
    shard.write_bytes(damaged)
    again = scale(tmp_path / "metric", StoredDepthMaps(world.depth), tmp_path / "other" / FILE_NAME)
    assert again.given == 5
    assert [row["reason"] for row in again.unscaled.values()] == ["unreadable"]


def test_an_interrupted_run_is_continued_to_the_same_bytes(world: World, tmp_path: Path) -> None:
    raw, true_depth = world.copy(tmp_path / "raw"), StoredDepthMaps(world.depth)
    with pytest.raises(KeyboardInterrupt):
        scale(raw, Counting(true_depth, stop_at=4))
    rows = raw / f".{FILE_NAME}.partial"
    assert len(rows.read_text().splitlines()) == 1 + 4
    rows.write_bytes(rows.read_bytes()[:-7])  # killed while it wrote the fourth
    with pytest.raises(ValueError, match="3 clips of an interrupted run with another depth source or other settings"):
        scale(raw, true_depth, min_points=61)
    depth = Counting(true_depth)
    report = scale(raw, depth)
    assert (report.remembered, len(depth.asked)) == (3, 3)
    assert (raw / FILE_NAME).read_bytes() == world.estimates
    assert not rows.exists()
    nothing_to_do = Counting(true_depth, stop_at=0)
    assert scale(raw, nothing_to_do).remembered == 6
    assert (raw / FILE_NAME).read_bytes() == world.estimates
    with pytest.raises(ValueError, match=r"holds estimates made in another way \(settings differ\)"):
        scale(raw, true_depth, min_points=61)


def test_bad_clips_are_counted_and_stop_nothing(world: World, tmp_path: Path) -> None:
    raw = world.copy(tmp_path / "raw", estimates=True)
    first, second, third, fourth, fifth, sixth = sorted(world.truth)
    files = {path.stem: path for path in (raw / "pose_files").rglob("*.txt")}
    files[first].write_text(files[first].read_text().replace("0.5", "nan"))
    files[second].write_text(files[second].read_text().splitlines()[0] + "\n")
    _turn_without_moving(files[third])
    (raw / "metric_scale.json").write_text(json.dumps({fourth: 2.0}))
    depth = tmp_path / "depth"
    shutil.copytree(world.depth, depth)
    next(depth.rglob(f"{fifth}.npz")).unlink()
    # The sixth clip and the depth of all others are as they were: what is known of it is kept.
    report = scale(raw, StoredDepthMaps(depth))
    assert report.given == 1
    assert set(report.scaled) == {sixth}
    assert report.remembered == 1
    assert {clip_id: row["reason"] for clip_id, row in report.unscaled.items()} == {
        first: "unreadable", second: "unreadable", third: "poses_off_frames", fifth: "depth_failed",
    }  # fmt: skip
    assert f"has no depth maps of clip {fifth}" in report.unscaled[fifth]["message"]
    lines = report.lines()
    assert lines[0] == "6 clips: 1 scaled, 1 have a scale already, 4 without (1 taken over from an earlier run)"
    assert f"  unreadable: 2 ({first}, {second})" in lines
    with pytest.raises(ValueError, match=r"could not be estimated \((depth|poses).*\); give it in metric_scale.json"):
        pack_quietly(raw, tmp_path / "set", scale_policy="metric", on_bad_clip="drop", max_drop_rate=0.0)


def _turn_without_moving(path: Path) -> None:
    """Put all cameras of a pose file at the same place."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[1:], 1):
        fields = line.split()
        for column in (10, 14, 18):
            fields[column] = "0"
        lines[number] = " ".join(fields)
    path.write_text("\n".join(lines) + "\n")


def test_an_estimate_of_other_cameras_is_refused_and_made_again(world: World, tmp_path: Path) -> None:
    raw = world.copy(tmp_path / "raw", estimates=True)
    changed = sorted(world.truth)[0]
    path = next((raw / "pose_files").rglob(f"{changed}.txt"))
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines[1:], 1):
        fields = line.split()
        for column in (10, 14, 18):
            fields[column] = f"{3 * float(fields[column]):.9f}"
        lines[number] = " ".join(fields)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"clip {changed} in depth_scale.json was estimated with other .*_stale"):
        pack_quietly(raw, tmp_path / "set")
    report = scale(raw, StoredDepthMaps(world.depth))
    assert report.remembered == 5
    assert report.scaled[changed]["metres_per_unit"] == pytest.approx(world.truth[changed] / 3, rel=WITHIN)
    pack_quietly(raw, tmp_path / "set", scale_policy="metric")


def test_two_runs_at_once_are_kept_apart(world: World, tmp_path: Path) -> None:
    class Second(Counting):
        def __call__(self, frames: DepthFrames) -> DepthMaps:
            with pytest.raises(ValueError, match="another run is estimating for"):
                scale(raw, self.depth)
            self.asked.append(frames.clip_id)
            raise KeyboardInterrupt

    raw = world.copy(tmp_path / "raw")
    depth = Second(StoredDepthMaps(world.depth))
    with pytest.raises(KeyboardInterrupt):
        scale(raw, depth)
    assert len(depth.asked) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "JSONDecodeError"), ('{"format": "x", "version": 1}', "format 'x', version 1"), ("[]", "TypeError")],
)
def test_a_file_of_something_else_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(ValueError, match=rf"depth_scale.json: {message}.*; expected 'cami2v-depth-scale' of version 1"):
        read_scale_file(tmp_path / FILE_NAME)
