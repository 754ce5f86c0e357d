"""Every foreign layout gives the clips that RealEstate10K's raw layout gives."""

from __future__ import annotations

import json
import pickle
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cami2v.batch import RawClip
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.video import read_frames
from data_pipeline.bad_clips import Reason
from data_pipeline.index import read_index, read_sample
from data_pipeline.layouts.clip import Layout
from data_pipeline.layouts.detect import READERS, open_source
from data_pipeline.layouts.plain_objects import read_object_array
from data_pipeline.manifest import read_manifest
from data_pipeline.realestate10k.inspect import inspect_clip
from data_pipeline.stages import parse_sample
from tests.data_pipeline.layouts.foreign_folders import FPS, WRITERS, CutClip, cut_clips, raw
from tests.data_pipeline.raw_folders import READING, pack_quietly

SETTINGS: dict[str, dict[str, Any]] = {"colmap": {"frames_per_second": float(FPS)}, "tum": {"camera_axes": "opencv"}}
CAMERAS_OFF = {"pixelsplat": 1e-6}  # float32; the others carry 12 digits
DEALT = ("colmap", "tum")  # they have no splits of their own


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[CutClip]:
    return cut_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def expected(clips: list[CutClip], tmp_path_factory: pytest.TempPathFactory) -> dict[str, RawClip]:
    folder = tmp_path_factory.mktemp("reference")
    raw(folder / "raw", clips)
    pack_quietly(folder / "raw", folder / "set")
    return loaded(folder / "set")


def loaded(folder: Path) -> dict[str, RawClip]:
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        for sample in read_index(shard):
            clip = parse_sample(read_sample(shard, sample), scale_policy=ScalePolicy.METRIC, where=sample.key)
            found[clip.clip_id.removeprefix("videos-")] = clip
    return found


def reading(name: str, **changes: Any) -> dict[str, Any]:
    return {"reading": replace(READING, **{**SETTINGS.get(name, {}), **changes})}


def test_there_is_a_reader_and_a_fixture_for_every_name() -> None:
    assert {*WRITERS, "videos", "video_clips"} == set(Layout)
    assert set(READERS) == set(WRITERS)


@pytest.mark.parametrize("layout", WRITERS)
def test_packed_clips_equal_those_of_the_raw_layout(
    layout: str, clips: list[CutClip], expected: dict[str, RawClip], tmp_path: Path
) -> None:
    WRITERS[layout](tmp_path / "source", clips)
    result = pack_quietly(tmp_path / "source", tmp_path / "set", **reading(layout))
    named = open_source(tmp_path / "source", reading(layout, layout=Layout(layout))["reading"])
    assert {clip.clip_id.removeprefix("videos-") for clip in named.clips} == {clip.clip_id for clip in clips}
    assert result.report is not None
    assert result.report.total == 0
    manifest = read_manifest(tmp_path / "set")
    assert manifest.generator["layout"] == layout
    assert manifest.generator["reading"] == SETTINGS.get(layout, {})
    assert manifest.metric_scale == {"given": len(clips), "estimated": 0, "without": 0}
    assert not set(manifest.splits["train"].sources) & set(manifest.splits["test"].sources)
    if layout not in DEALT:
        assert {split: entry.samples for split, entry in manifest.splits.items()} == {
            split: sum(clip.split == split for clip in clips) for split in ("train", "test")
        }
    found = loaded(tmp_path / "set")
    assert set(found) == set(expected) == {clip.clip_id for clip in clips}
    for clip_id, clip in found.items():
        wanted = expected[clip_id]
        tolerance = CAMERAS_OFF.get(layout, 1e-9)
        np.testing.assert_allclose(clip.world_to_camera, wanted.world_to_camera, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(clip.intrinsics_normalized, wanted.intrinsics_normalized, atol=tolerance)
        np.testing.assert_allclose(clip.translation_scale, wanted.translation_scale)
        steps = np.diff(clip.timestamps_microseconds), np.diff(wanted.timestamps_microseconds)
        np.testing.assert_allclose(*steps, atol=2)
        assert (clip.captions, clip.source_id) == (wanted.captions, wanted.source_id)
        assert clip.frames_per_second == pytest.approx(wanted.frames_per_second, rel=1e-3)
        assert (clip.height, clip.width, clip.pixel_aspect) == (wanted.height, wanted.width, wanted.pixel_aspect)
        difference = read_frames(clip.video).astype(float) - read_frames(wanted.video)
        assert difference.shape[0] == len(wanted.timestamps_microseconds)
        assert np.mean(difference**2) < 10  # 38 dB


def test_opengl_axes_are_turned(clips: list[CutClip], expected: dict[str, RawClip], tmp_path: Path) -> None:
    """The same rotations said to be OpenGL ones look the other way: y and z of the camera flip."""
    WRITERS["tum"](tmp_path / "source", clips[:1])
    settings = replace(READING, camera_axes="opengl")
    track = open_source(tmp_path / "source", settings).clips[0].track()
    wanted = np.diag([1.0, -1.0, -1.0]) @ expected[clips[0].clip_id].world_to_camera
    np.testing.assert_allclose(track.world_to_camera, wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("layout", "missing"),
    [("colmap", "pack.reading.frames_per_second"), ("tum", "pack.reading.camera_axes to opencv")],
)
def test_what_a_layout_does_not_say_must_be_given(
    layout: str, missing: str, clips: list[CutClip], tmp_path: Path
) -> None:
    WRITERS[layout](tmp_path / "source", clips[:1])
    with pytest.raises(ValueError, match=missing) as caught:
        open_source(tmp_path / "source", READING)
    assert "\n" not in str(caught.value)


def test_a_rate_out_of_range(tmp_path: Path) -> None:
    for rate in (0.0, -5.0, 1e6, float("nan")):
        with pytest.raises(ValueError, match=r"pack.reading.frames_per_second=.*must be above 0"):
            open_source(tmp_path, replace(READING, frames_per_second=rate))


@pytest.mark.parametrize("layout", ["realcam_vid", "videox_fun"])
def test_clips_of_unknown_sources_are_refused_or_counted_as_one_each(
    layout: str, clips: list[CutClip], tmp_path: Path
) -> None:
    WRITERS[layout](tmp_path / "source", clips)
    (tmp_path / "source" / "sources.json").unlink()
    with pytest.raises(ValueError, match=r"does not say which video clip .* was cut from.*each_clip_is_a_source=true"):
        pack_quietly(tmp_path / "source", tmp_path / "set")
    pack_quietly(tmp_path / "source", tmp_path / "set", **reading(layout, each_clip_is_a_source=True))
    assert len(loaded(tmp_path / "set")) == len(clips)


def test_splits_of_a_layout_that_share_a_source_are_refused(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["realcam_vid"](tmp_path / "source", clips)
    sources = {f"videos-{clip.clip_id}": "same" for clip in clips}
    (tmp_path / "source" / "sources.json").write_text(json.dumps(sources))
    with pytest.raises(ValueError, match="splits test and train share 1 source videos"):
        pack_quietly(tmp_path / "source", tmp_path / "set")


def test_a_folder_of_two_layouts_must_be_named(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["tum"](tmp_path / "source", clips[:1])
    (tmp_path / "source" / "train").mkdir()
    torch.save([], tmp_path / "source" / "train" / "000000.torch")
    with pytest.raises(ValueError, match="could be pixelsplat or tum; say which with layout=<name>"):
        open_source(tmp_path / "source", READING)
    assert open_source(tmp_path / "source", replace(READING, layout=Layout.TUM, camera_axes="opencv")).clips


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)  # type: ignore[return-value]


def test_pickled_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("evil_train.npz", np.array([Malicious()], dtype=object))
    with pytest.raises(ValueError, match="which is no plain value"):
        read_object_array(Path("evil_train.npz"), "arr_0")
    (tmp_path / "chunks").mkdir()
    torch.save([{"key": "a", "url": Malicious()}], tmp_path / "chunks" / "000000.torch")
    with pytest.raises(ValueError, match="not a pixelSplat chunk"):
        open_source(tmp_path / "chunks", READING)
    assert not Path("owned").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "chunks" / "000000.torch", weights_only=True)


def test_pictures_without_a_pose_stop_a_colmap_clip(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["colmap"](tmp_path / "source", clips)
    scene = tmp_path / "source" / clips[0].clip_id
    (scene / "images" / "frame_20.png").write_bytes((scene / "images" / "frame_8.png").read_bytes())
    with pytest.raises(ValueError, match=r"6 posed images for 7 pictures.*frame_20.png has none"):
        pack_quietly(tmp_path / "source", tmp_path / "set", **reading("colmap"))


def test_frames_far_from_any_pose_stop_a_tum_clip(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["tum"](tmp_path / "source", clips)
    path = tmp_path / "source" / clips[0].clip_id / "groundtruth.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], *lines[4:]]) + "\n")
    with pytest.raises(ValueError, match="groundtruth.txt: no pose within 17 ms of the frame at 0.067 s"):
        pack_quietly(tmp_path / "source", tmp_path / "set", **reading("tum"))


def test_videox_fun_poses_are_not_stretched_to_the_video(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["videox_fun"](tmp_path / "source", clips)
    path = next((tmp_path / "source").glob(f"*/{clips[0].clip_id}.txt"))
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"6 frames, but .*txt has 5 cameras"):
        pack_quietly(tmp_path / "source", tmp_path / "set")


def test_clips_of_a_chunk_that_was_not_downloaded_are_counted(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["pixelsplat"](tmp_path / "source", clips)
    (tmp_path / "source" / "train" / "000001.torch").unlink()
    lost = {
        key
        for key, chunk in json.loads((tmp_path / "source" / "train" / "index.json").read_text()).items()
        if "1" in chunk
    }
    result = pack_quietly(tmp_path / "source", tmp_path / "set", on_bad_clip="drop")
    assert result.report is not None
    assert {reason: set(dropped) for reason, dropped in result.report.dropped.items()} == {Reason.VIDEO_MISSING: lost}
    assert set(loaded(tmp_path / "set")) == {clip.clip_id for clip in clips} - lost


@pytest.mark.parametrize("layout", WRITERS)
def test_clips_and_frames_travel_to_other_processes(layout: str, clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS[layout](tmp_path / "source", clips)
    clip = open_source(tmp_path / "source", reading(layout)["reading"]).clips[0]
    inspected = inspect_clip(pickle.loads(pickle.dumps(clip)), min_frames=4, default_caption=None)
    again = pickle.loads(pickle.dumps(inspected))
    assert again.frame_source == inspected.frame_source
    assert len(list(again.frame_source.frames([1, 3]))) == 2


SIDE_FILES = ("captions.json", "metric_scale.json", "sources.json")


def named_files(value: Any) -> set[Path]:
    if isinstance(value, Path):
        return {value}
    inner = [getattr(value, each.name) for each in fields(value)] if is_dataclass(value) else value
    return set().union(*map(named_files, inner)) if isinstance(inner, list | tuple) else set()


@pytest.mark.parametrize("layout", WRITERS)
def test_clips_name_every_file_they_are_made_of(layout: str, clips: list[CutClip], tmp_path: Path) -> None:
    """Otherwise an interrupted run that goes on would take an inspection for good whose files have changed."""
    WRITERS[layout](tmp_path / "source", clips)
    found = open_source(tmp_path / "source", reading(layout)["reading"]).clips
    named = set().union(*(named_files((clip, clip.frame_source(clip.track()))) for clip in found))
    expected = {path for path in (tmp_path / "source").rglob("*") if path.is_file() and path.name not in SIDE_FILES}
    lists = {path for path in expected if path.suffix == ".json"}  # what they say is in the clips
    originals = {path for path in expected if path.name == "other.txt"}
    assert expected - lists - originals <= named


def test_frame_counts_instead_of_microseconds_need_a_rate(clips: list[CutClip], tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    WRITERS["pixelsplat"](tmp_path / "all", clips)
    chunk = torch.load(tmp_path / "all" / "train" / "000000.torch", weights_only=True)
    for clip in chunk:
        clip["timestamps"] = torch.arange(len(clip["images"]))
    torch.save(chunk, tmp_path / "source" / "000000.torch")
    for name in ("captions.json", "metric_scale.json"):
        (tmp_path / "source" / name).write_text((tmp_path / "all" / name).read_text())
    with pytest.raises(ValueError, match=r"are no microseconds.*pack.reading.frames_per_second"):
        pack_quietly(tmp_path / "source", tmp_path / "set")
    pack_quietly(tmp_path / "source", tmp_path / "set", **reading("pixelsplat", frames_per_second=20.0))
    assert {clip.frames_per_second for clip in loaded(tmp_path / "set").values()} == {20.0}


def test_lens_distortion_stops_a_colmap_clip(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["colmap"](tmp_path / "source", clips)
    cameras = next((tmp_path / "source").glob("*/sparse/0/cameras.txt"))
    last = cameras.read_text().splitlines()[-1].split()
    opencv = " ".join(["1", "OPENCV", *last[2:], "0.1", "0", "0", "0"])
    cameras.write_text(opencv + "\n")
    with pytest.raises(ValueError, match="is OPENCV with distortion.*image_undistorter"):
        pack_quietly(tmp_path / "source", tmp_path / "set", **reading("colmap"))


def test_several_lists_must_say_their_splits(clips: list[CutClip], tmp_path: Path) -> None:
    WRITERS["cameractrl"](tmp_path / "source", clips)
    annotations = tmp_path / "source" / "annotations"
    (annotations / "extra.json").write_text((annotations / "test.json").read_text())
    with pytest.raises(ValueError, match="extra.json, test.json, train.json: each of several lists must be named"):
        open_source(tmp_path / "source", READING)
    (annotations / "extra.json").rename(annotations / "validation.json")
    with pytest.raises(ValueError, match="clip ids are there more than once"):
        open_source(tmp_path / "source", READING)
