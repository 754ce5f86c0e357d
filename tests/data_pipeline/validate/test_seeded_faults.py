"""Nothing is found in a clean set, and each of the seeded faults is found where it was put, alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cami2v.video import encode_mp4, read_frames
from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.synthetic.write import write_raw_dataset
from data_pipeline.validate.clip import ClipOptions
from data_pipeline.validate.findings import Check, Finding, Severity
from data_pipeline.validate.report import Report
from data_pipeline.validate.run import validate
from tests.data_pipeline.raw_folders import pack_quietly
from tests.data_pipeline.synthetic.worlds import small_world
from tests.data_pipeline.validate import seeded

FRAMES = 12
READING = ReadSettings(layout="auto", frames_per_second=None, camera_axes=None, each_clip_is_a_source=False)
OPTIONS = {"min_frames": FRAMES, "decode": False, "epipolar_every": 0, "processes": 1}


def look(source: Path, **changes: Any) -> Report:
    return validate(source, ClipOptions(**{**OPTIONS, **changes}), READING, keep_shards=False, progress=False)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "raw"
    world = small_world(
        frames_per_clip=FRAMES,
        sources={"train": 2, "test": 1},
        path_kinds=("truck", "mixture"),
        width=256,
        height=144,
        supersampling=1,
        rooms=1,
    )
    write_raw_dataset(folder, world, 1, lambda done, total: None)
    return folder


@pytest.fixture(scope="module")
def clean(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("packed") / "set"
    pack_quietly(raw, output, min_shards=1, scale_policy="metric")
    return output


@pytest.fixture
def folder(clean: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean, tmp_path / "set"))


@pytest.mark.parametrize("kind", ["raw", "clean"])
def test_nothing_is_found_in_a_clean_set(kind: str, request: pytest.FixtureRequest) -> None:
    report = look(request.getfixturevalue(kind), decode=True, epipolar_every=1)
    assert report.findings == []
    assert report.clips == report.compared == 6
    assert report.exit_code(strict=True) == 0


def nan_pose(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["world_to_camera"][3, 0, 3] = np.nan


def sheared_rotation(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["world_to_camera"][5, 0, 0] += 0.2


def mirrored(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["world_to_camera"][:, 0] *= -1


def inverted(about: seeded.About, arrays: seeded.Arrays) -> None:
    poses = arrays["world_to_camera"]
    rotation = poses[:, :, :3].transpose(0, 2, 1)
    arrays["world_to_camera"] = np.concatenate([rotation, -rotation @ poses[:, :, 3:]], axis=2)


def poses_of_another_path(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["world_to_camera"] = arrays["world_to_camera"][::-1].copy()
    arrays["world_to_camera"][:, 1, 3] += np.linspace(0, 2, FRAMES)


def pixels_for_intrinsics(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["intrinsics_normalized"] *= [256, 144, 256, 144]


def tiny_focal(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["intrinsics_normalized"][2, 0] = 0.01


def wrong_aspect(about: seeded.About, arrays: seeded.Arrays) -> None:
    about["pixel_aspect"] = 1.185


def half_rate(about: seeded.About, arrays: seeded.Arrays) -> None:
    about["packed"]["frames_per_second"] = 15.0


def doubled_times(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["timestamps_microseconds"] *= 2


def one_camera_less(about: seeded.About, arrays: seeded.Arrays) -> None:
    for name in arrays:
        arrays[name] = arrays[name][:-1]


def other_size(about: seeded.About, arrays: seeded.Arrays) -> None:
    about["packed"]["width"] = 254


def time_backwards(about: seeded.About, arrays: seeded.Arrays) -> None:
    times = arrays["timestamps_microseconds"]
    times[4] = times[3]


def far_frame(about: seeded.About, arrays: seeded.Arrays) -> None:
    about["timestamp_offsets_microseconds"][6] = -12000


def negative_scale(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["metric_scale"][7] = -1


def no_scale(about: seeded.About, arrays: seeded.Arrays) -> None:
    del arrays["metric_scale"]


def still(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["world_to_camera"][:] = arrays["world_to_camera"][0]


def jump(about: seeded.About, arrays: seeded.Arrays) -> None:
    arrays["world_to_camera"][6:, :, 3] += [30.0, 0, 0]


def no_caption(about: seeded.About, arrays: seeded.Arrays) -> None:
    about["captions"] = [" "]


@pytest.mark.parametrize(
    ("change", "check", "frame"),
    [
        (nan_pose, Check.POSE_NOT_FINITE, 3),
        (sheared_rotation, Check.ROTATION_NOT_RIGID, 5),
        (mirrored, Check.ROTATION_NOT_RIGID, 0),
        (pixels_for_intrinsics, Check.INTRINSICS_NOT_NORMALIZED, 0),
        (tiny_focal, Check.INTRINSICS_IMPLAUSIBLE, 2),
        (wrong_aspect, Check.PIXEL_ASPECT_WRONG, None),
        (doubled_times, Check.FRAME_RATE_MISMATCH, None),
        (one_camera_less, Check.FRAME_COUNT_MISMATCH, None),
        (other_size, Check.FRAME_SIZE_MISMATCH, None),
        (time_backwards, Check.TIMESTAMPS_NOT_INCREASING, 4),
        (far_frame, Check.TIMESTAMPS_FAR, 6),
        (negative_scale, Check.METRIC_SCALE_MALFORMED, 7),
        (no_scale, Check.METRIC_SCALE_MISSING, None),
        (still, Check.STILL_CAMERA, None),
        (jump, Check.JUMPING_CAMERA, 6),
        (no_caption, Check.CAPTION_MISSING, None),
    ],
)
def test_a_fault_of_one_clip_is_found(change: seeded.Change, check: Check, frame: int | None, folder: Path) -> None:
    clip = seeded.change_clip(folder, change)
    (found,) = look(folder, min_frames=FRAMES - 1).findings
    assert (found.check, found.clip, found.frame) == (check, clip, frame)
    assert found.shard == seeded.first_shard(folder).name


def test_a_wrong_rate_disagrees_with_video_and_timestamps(folder: Path) -> None:
    clip = seeded.change_clip(folder, half_rate)
    findings = look(folder).findings
    assert {(found.check, found.clip) for found in findings} == {(Check.FRAME_RATE_MISMATCH, clip)}
    assert len(findings) == 2


@pytest.mark.parametrize(
    ("change", "check"), [(inverted, Check.POSES_INVERTED), (poses_of_another_path, Check.POSES_OFF_FRAMES)]
)
def test_poses_that_the_frames_contradict_are_found(change: seeded.Change, check: Check, folder: Path) -> None:
    clip = seeded.change_clip(folder, change)
    assert look(folder).findings == []
    (found,) = look(folder, epipolar_every=1).findings
    assert (found.check, found.clip) == (check, clip)
    assert "pixels off their epipolar lines" in found.found


def test_squashed_pixels_are_found_and_confirmed_by_matches(folder: Path) -> None:
    shard = seeded.first_shard(folder)
    frames = read_frames(seeded.members_of(shard)[0][1]["mp4"])
    squashed = np.ascontiguousarray(frames[:, :, ::2])

    def narrow(about: seeded.About, arrays: seeded.Arrays) -> None:
        about["packed"]["width"], about["pixel_aspect"] = 128, 2.0

    seeded.change_clip(folder, narrow, mp4=encode_mp4(squashed, fps=30, crf=4))
    (found,) = look(folder, epipolar_every=1).findings
    assert (found.check, found.severity) == (Check.PIXELS_SQUASHED, Severity.WARNING)
    assert "pixels 2.000 times as wide as high: 128x144 of a 256x144 picture; matches are 0." in found.found


def test_a_crop_that_the_intrinsics_did_not_follow_is_found(folder: Path) -> None:
    shard = seeded.first_shard(folder)
    frames = read_frames(seeded.members_of(shard)[0][1]["mp4"])
    cropped = np.ascontiguousarray(frames[:, :, 56:200])

    def cut(about: seeded.About, arrays: seeded.Arrays) -> None:
        about["packed"]["width"], about["pixel_aspect"] = 144, 256 / 144

    seeded.change_clip(folder, cut, mp4=encode_mp4(cropped, fps=30, crf=4))
    found = {each.check for each in look(folder, epipolar_every=1).findings}
    assert Check.INTRINSICS_OFF_FRAMES in found


def damage_video(folder: Path) -> Check:
    """Damage the coded pictures and note the new checksums, as if a damaged video had been packed."""
    mp4 = bytearray(seeded.members_of(seeded.first_shard(folder))[0][1]["mp4"])
    start = mp4.index(b"mdat") + 4
    mp4[start : start + 4000] = bytes(4000)
    seeded.change_clip(folder, lambda about, arrays: None, mp4=bytes(mp4))
    return Check.VIDEO_UNREADABLE


def no_video(folder: Path) -> Check:
    seeded.change_clip(folder, lambda about, arrays: None, mp4=b"not a video" * 100)
    return Check.VIDEO_UNREADABLE


def flipped_byte(folder: Path) -> Check:
    shard = seeded.first_shard(folder)
    data = bytearray(shard.read_bytes())
    data[2048] ^= 255
    shard.write_bytes(data)
    content = seeded.manifest(folder)
    content["splits"]["train"]["shards"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    seeded.write_manifest(folder, content)
    return Check.MEMBER_CORRUPT


def wrong_hash(folder: Path) -> Check:
    content = seeded.manifest(folder)
    content["splits"]["train"]["shards"][0]["sha256"] = "0" * 64
    seeded.write_manifest(folder, content)
    return Check.SHARD_HASH_MISMATCH


def missing_shard(folder: Path) -> Check:
    seeded.first_shard(folder).unlink()
    return Check.SHARD_MISSING


def stale_index(folder: Path) -> Check:
    index = seeded.first_shard(folder).with_suffix(".index.json")
    content = json.loads(index.read_text())
    index.write_text(json.dumps({**content, "bytes": 1}))
    return Check.INDEX_MISMATCH


def broken_manifest(folder: Path) -> Check:
    (folder / "manifest.json").write_text('{"format": ')
    return Check.MANIFEST_UNREADABLE


def copied_clip(folder: Path) -> Check:
    shard = seeded.first_shard(folder)
    samples = seeded.members_of(shard)
    seeded.put(folder, shard, [*samples, ("copy", samples[0][1])])
    return Check.DUPLICATE_CLIP


def listed_leak(folder: Path) -> Check:
    content = seeded.manifest(folder)
    content["splits"]["test"]["sources"] += content["splits"]["train"]["sources"][:1]
    seeded.write_manifest(folder, content)
    return Check.SOURCE_LEAK


def unlisted_leak(folder: Path) -> Check:
    source = seeded.manifest(folder)["splits"]["train"]["sources"][0]
    seeded.change_clip(folder, lambda about, arrays: about.update(source_id=source), split="test")
    return Check.SOURCE_LEAK


@pytest.mark.parametrize(
    "fault",
    [
        damage_video,
        no_video,
        flipped_byte,
        wrong_hash,
        missing_shard,
        stale_index,
        broken_manifest,
        copied_clip,
        listed_leak,
        unlisted_leak,
    ],
)
def test_a_fault_of_the_set_is_found(fault: Callable[[Path], Check], folder: Path) -> None:
    check = fault(folder)
    report = look(folder, decode=True)
    assert {found.check for found in report.findings} == {check}
    assert len(report.findings) == 1
    assert report.exit_code(strict=True) == 1


def test_a_test_clip_that_is_also_trained_on_is_an_error(folder: Path) -> None:
    train, test = seeded.first_shard(folder), seeded.first_shard(folder, "test")
    seeded.put(folder, test, [*seeded.members_of(test), seeded.members_of(train)[0]])
    findings = {found.check: found for found in look(folder).findings}
    assert set(findings) == {Check.DUPLICATE_ACROSS_SPLITS, Check.SOURCE_LEAK}
    assert findings[Check.DUPLICATE_ACROSS_SPLITS].severity is Severity.ERROR


def test_several_processes_find_the_same(folder: Path) -> None:
    seeded.change_clip(folder, nan_pose)
    seeded.change_clip(folder, no_caption, split="test")

    def key(found: Finding) -> tuple[str, str, str | None]:
        return found.check, found.shard, found.clip

    assert [key(f) for f in look(folder).findings] == [key(f) for f in look(folder, processes=2).findings]


def test_the_raw_folder_names_what_packing_would_refuse(raw: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(raw, tmp_path / "raw"))
    poses = sorted(folder.glob("pose_files/*/*.txt"))
    lines = poses[0].read_text().splitlines()
    poses[0].write_text("\n".join([*lines[:3], lines[3].replace(lines[3].split()[1], "nan"), *lines[4:]]) + "\n")
    captions = next(folder.glob("*captions*.json"))
    content = {name: text for name, text in json.loads(captions.read_text()).items() if poses[1].stem not in name}
    captions.write_text(json.dumps(content))
    found = {(each.check, each.clip) for each in look(folder).findings}
    assert found == {(Check.POSE_NOT_FINITE, poses[0].stem), (Check.CAPTION_MISSING, poses[1].stem)}
