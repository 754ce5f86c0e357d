"""Clips that cannot be used: replaced in training, by seed and number alone, and never in an evaluation."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cami2v.batch import SkippedClip
from data_pipeline.dataset import MAX_SUBSTITUTES
from data_pipeline.index import read_sample
from tests.data_pipeline.damage import break_json, break_video, clips_of, copy_set, flip_bit, lose_cameras
from tests.data_pipeline.raw_folders import clips_folder, grey_frames, pack_quietly, write_poses
from tests.data_pipeline.test_loader import assert_equal, loader, rows, take

BAD = {
    "clip1": "member_damaged", "clip3": "not_a_clip", "clip5": "not_decodable", "clip7": "member_missing",
    "clip9": "too_short",
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips of 30 frames, of which clip9 has only 6."""
    from cami2v.video import write_mp4

    folder = tmp_path_factory.mktemp("skipped")
    raw = clips_folder(folder / "raw", clips=10, frames=30, splits=["train"] * 10)
    write_mp4(raw / "video_clips" / "clip9.mp4", grey_frames(9, range(6)), 30, crf=4)
    write_poses(raw / "pose_files" / "train" / "clip9.txt", 6, source="src9")
    return pack_quietly(raw, folder / "set", min_shards=4).folder


@pytest.fixture(scope="module")
def shards(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with four more bad clips, each of its own kind."""
    folder = copy_set(whole, tmp_path_factory.mktemp("damaged") / "set")
    flip_bit(folder, "clip1")
    break_json(folder, "clip3")
    break_video(folder, "clip5")
    lose_cameras(folder, "clip7")
    return folder


def skipped(folder: Path, batches: int, **request: Any) -> tuple[list[Any], list[SkippedClip]]:
    source = loader(folder, frames=7, num_workers=request.pop("num_workers", 0))
    return rows(take(source, batches, **request)), source.take_skipped()


def test_bad_clips_are_replaced_and_told_by_reason(shards: Path) -> None:
    seen, skips = skipped(shards, 15)
    assert len(seen) == 30
    assert not {clip for clip, *_ in seen} & BAD.keys()
    assert {skip.clip: skip.reason for skip in skips} == BAD
    places = clips_of(shards)
    for skip in skips:
        assert skip.shard == places[skip.clip][0].name
        assert f"{skip.shard} sample {skip.clip}" in skip.message
        assert "\n" not in skip.message
    # Three epochs: each bad clip is met three times as an epoch's own clip, and now and then as a substitute.
    assert all(sum(skip.clip == clip for skip in skips) >= 3 for clip in BAD)


def test_good_samples_do_not_notice(whole: Path, shards: Path) -> None:
    before, few = skipped(whole, 15)
    after, many = skipped(shards, 15)
    assert {skip.clip for skip in few} == {"clip9"}
    newly = {skip.sample for skip in many if skip.clip != "clip9"}
    assert 0 < len(newly) < 25
    for number, (left, right) in enumerate(zip(before, after, strict=True)):
        assert (left == right) == (number not in newly)
        assert left[2] == right[2]  # the sample's seed


@pytest.mark.parametrize("num_workers", [0, 2])
def test_substitutes_depend_on_seed_and_number_alone(shards: Path, num_workers: int) -> None:
    seen, skips = skipped(shards, 15)
    source = loader(shards, frames=7, num_workers=num_workers)
    again = take(source, 9, start=12)
    for left, right in zip(take(loader(shards, frames=7), 15)[6:], again, strict=True):
        assert_equal(left, right)
    assert source.take_skipped() == [skip for skip in skips if skip.sample >= 12]
    assert source.take_skipped() == []
    parts = [skipped(shards, 15, micro_batch_size=1, rank=rank, world_size=2) for rank in range(2)]
    assert [row for pair in zip(parts[0][0], parts[1][0], strict=True) for row in pair] == seen
    assert sorted((*parts[0][1], *parts[1][1]), key=lambda skip: skip.sample) == skips
    assert skipped(shards, 15, seed=6)[0] != seen


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("damage", "reason"), [(flip_bit, "damaged"), (break_json, "not a posed clip")])
def test_an_evaluation_replaces_nothing(
    whole: Path, tmp_path: Path, damage: Callable[[Path, str], None], reason: str, num_workers: int
) -> None:
    folder = copy_set(whole, tmp_path / "set")
    damage(folder, "clip2")
    source = loader(folder, num_workers=num_workers)
    with pytest.raises(ValueError, match=rf"train-00000\d.tar sample clip2: .*{reason}") as caught:
        list(source.fixed(count=None, rank=0, world_size=1, seed=1))
    assert "\n" not in str(caught.value)


def test_a_glance_looks_past_bad_clips(shards: Path) -> None:
    source = loader(shards, frames=7)
    glances = list(source.glance(count=3, seed=1))
    assert [batch.clip_ids[0] for batch in glances] == [clip for clip in clips_of(shards) if clip not in BAD][:3]
    clean = loader(shards, frames=4, split="train")
    good = [clip for clip in clips_of(shards) if clip not in BAD]
    assert rows(list(clean.glance(count=1, seed=1)))[0][0] in (*good, "clip9")
    with pytest.raises(ValueError, match="fewer than data.frames=31"):
        list(loader(shards, frames=31).glance(count=1, seed=1))


def test_short_clips_are_announced_and_refused_where_none_may_be_replaced(
    whole: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = loader(whole, frames=7)
    assert "has a clip of 6 frames, fewer than data.frames=7" in caplog.text
    with pytest.raises(ValueError, match="has a clip of 6 frames, fewer than data.frames=7; lower data.frames"):
        next(source.fixed(count=1, rank=0, world_size=1, seed=1))
    with pytest.raises(ValueError, match="has a clip of 6 frames, fewer than data.frames=7; lower data.frames"):
        loader(whole, frames=7, max_skip_rate=0.0)
    with pytest.raises(ValueError, match=r"data.max_skip_rate=1.5: must be a share between 0 and 1"):
        loader(whole, max_skip_rate=1.5)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_where_nothing_can_be_used_the_stream_ends_in_one_line(whole: Path, num_workers: int) -> None:
    message = rf"{MAX_SUBSTITUTES + 1} clips in a row cannot be used, .* fewer than data.frames=31; lower data.frames"
    with pytest.raises(ValueError, match=message):
        take(loader(whole, frames=31, num_workers=num_workers), 1)


def test_a_shard_that_vanishes_is_no_bad_clip(whole: Path, tmp_path: Path) -> None:
    folder = copy_set(whole, tmp_path / "set")
    source = loader(folder)
    for shard in folder.glob("*.tar"):
        shard.unlink()
    with pytest.raises(ValueError, match=r"train-00000\d.tar.*: cannot be read \(No such file or directory\)"):
        take(source, 1)


def test_a_worker_that_dies_is_reported_with_its_clip(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deadly(shard: Path, sample: Any) -> dict[str, bytes]:
        if sample.key == "clip4":
            os._exit(3)
        return read_sample(shard, sample)

    monkeypatch.setattr("data_pipeline.shard_store.read_sample", deadly)
    message = r"a loader worker died \(pid \d+, exit code 3\) on .*train-00000\d.tar sample clip4 \(worker [01], sample"
    with pytest.raises(ValueError, match=message) as caught:
        take(loader(whole, num_workers=2), 30)
    assert "\n" not in str(caught.value)


def test_a_worker_killed_from_outside_is_reported_with_its_clip(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does it where memory ends: at any moment, here while the worker holds still on a clip."""
    main = os.getpid()

    def slow(shard: Path, sample: Any) -> dict[str, bytes]:
        if sample.key == "clip4" and os.getpid() != main:
            time.sleep(60)
        return read_sample(shard, sample)

    def kill() -> None:
        while not (reading := [w for w in multiprocessing.active_children() if "clip4" in clips.last_words(w)]):
            time.sleep(0.05)
        os.kill(reading[0].pid or 0, signal.SIGKILL)

    monkeypatch.setattr("data_pipeline.shard_store.read_sample", slow)
    source = loader(whole, num_workers=2)
    clips: Any = None
    made = source._batches

    def remembered(stored: Any, numbers: Any) -> Any:
        nonlocal clips
        clips = stored
        return made(stored, numbers)

    monkeypatch.setattr(source, "_batches", remembered)
    killer = threading.Thread(target=kill)

    def read_all() -> None:
        stream = source.stream(micro_batch_size=2, rank=0, world_size=1, seed=5, start=0)
        next(stream)
        killer.start()
        list(islice(stream, 30))

    message = r"signal SIGKILL, out of memory\?\) on .*train-00000\d.tar sample clip4 \(worker [01], sample number"
    with pytest.raises(ValueError, match=message):
        read_all()
    killer.join()
