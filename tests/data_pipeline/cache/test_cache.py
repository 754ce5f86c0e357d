"""Caches of encoded clips: what is in them, what refuses them, and that training reads the clips of the pixel path."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from cami2v.batch import ClipBatch, ConditionPixels, ConditionTokens, EncodedClipBatch
from data_pipeline.cache.manifest import read_cache_manifest
from data_pipeline.cache.rows import HEADER_BYTES, NumberFormat, checksums
from data_pipeline.index import read_index
from data_pipeline.loader import ClipLoader
from tests.data_pipeline.cache.toy_towers import IDENTITIES, SETTINGS, ToyTowers, encode_toy
from tests.data_pipeline.damage import copy_set, flip_bit
from tests.data_pipeline.kill_pack import contents
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.data_pipeline.test_loader import loader, rows, take

FRAMES = 30


def last_frame(seed: int, frames: int) -> int:
    return frames - 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cache")
    splits = ["train"] * 7 + ["test"] * 3
    raw = clips_folder(place / "raw", clips=10, frames=FRAMES, splits=splits)
    pack_quietly(raw, place / "set", min_shards=4)
    encode_toy(place / "set", place / "cache")
    return place


def encoded(source: ClipLoader, batches: int, **request: int) -> list[EncodedClipBatch]:
    stream = source.stream(**({"micro_batch_size": 2, "rank": 0, "world_size": 1, "seed": 5, "start": 0} | request))
    taken = []
    for batch in islice(stream, batches):
        assert isinstance(batch, EncodedClipBatch)
        taken.append(batch)
    return taken


def assert_encodes(batch: EncodedClipBatch, pixels: ClipBatch, frame: int) -> None:
    """The batch is what the towers make of the pixels."""
    towers = ToyTowers()
    assert rows([batch]) == rows([pixels])
    for name in ("seeds", "frame_stride", "frames_per_second"):
        assert torch.equal(getattr(batch, name), getattr(pixels, name)), name
    for name in ("world_to_camera", "intrinsics_pixels", "translation_scale"):
        assert torch.equal(getattr(batch.cameras, name), getattr(pixels.cameras, name)), name
    assert (batch.cameras.height, batch.cameras.width) == (pixels.cameras.height, pixels.cameras.width)
    for row, video in enumerate(pixels.video):
        frames = video.transpose(0, 1)
        torch.testing.assert_close(batch.moments[row].transpose(0, 1), towers.moments(frames), rtol=0, atol=1e-6)
        if isinstance(batch.condition_image, ConditionTokens):
            expected = towers.image_tokens(frames[frame : frame + 1])[0]
            torch.testing.assert_close(batch.condition_image.tokens[row], expected, rtol=0, atol=1e-6)
        else:
            assert torch.equal(batch.condition_image.images[row], frames[frame])
    assert torch.equal(batch.text_tokens, towers.text_tokens(pixels.captions))
    assert torch.equal(batch.blank_text_tokens, towers.text_tokens([""])[0])
    assert batch.condition_frame.tolist() == [frame] * len(pixels.clip_ids)


@pytest.mark.parametrize("stride", [1, 3, [1, 6]])
def test_a_cached_batch_is_the_encoded_pixel_batch(folder: Path, stride: int | list[int]) -> None:
    plain = take(loader(folder / "set", frame_stride=stride), 7)
    cached = loader(folder / "set", frame_stride=stride, cache=str(folder / "cache"), condition_frame=last_frame)
    for batch, pixels in zip(encoded(cached, 7), plain, strict=True):
        assert_encodes(batch, pixels, 3)
        assert isinstance(batch.condition_image, ConditionTokens)
        assert torch.equal(batch.condition_image.blank, torch.zeros(5, 3))


def test_workers_processes_and_resume_do_not_change_what_comes(folder: Path) -> None:
    def source(**changes: Any) -> ClipLoader:
        return loader(folder / "set", cache=str(folder / "cache"), **changes)

    alone = encoded(source(), 8, micro_batch_size=2)
    assert rows(take(source().without_cache(), 8)) == [row for batch in alone for row in rows([batch])]
    with_workers = encoded(source(num_workers=2), 4, start=8)
    for left, right in zip(alone[4:], with_workers, strict=True):
        assert rows([left]) == rows([right])
        assert torch.equal(left.moments, right.moments)
    parts = [encoded(source(), 8, micro_batch_size=1, rank=rank, world_size=2) for rank in range(2)]
    for step, whole in enumerate(alone):
        assert torch.equal(whole.moments, torch.cat([part[step].moments for part in parts]))
        assert rows([whole]) == rows([part[step] for part in parts])


def test_without_image_tokens_the_conditioning_frame_comes_from_the_video(folder: Path, tmp_path: Path) -> None:
    encode_toy(folder / "set", tmp_path / "cache", image_tokens=False, dtype=NumberFormat.BF16)
    cached = loader(folder / "set", cache=str(tmp_path / "cache"), condition_frame=last_frame)
    (batch,), (pixels,) = encoded(cached, 1), take(loader(folder / "set"), 1)
    assert isinstance(batch.condition_image, ConditionPixels)
    assert torch.equal(batch.condition_image.images, pixels.video[:, :, 3])
    assert batch.moments.dtype == torch.bfloat16
    expected = ToyTowers().moments(pixels.video[0].transpose(0, 1)).to(torch.bfloat16)
    assert torch.equal(batch.moments[0].transpose(0, 1), expected)
    assert not (tmp_path / "cache" / "blank_image.npy").exists()


def test_webdataset_reads_a_cache(folder: Path) -> None:
    shards = sorted(str(path) for path in (folder / "cache").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).decode())
    assert sorted(sample["__key__"] for sample in samples) == [f"clip{number}" for number in range(10)]
    manifest = read_cache_manifest(folder / "cache")
    for sample in samples:
        assert sample["moments.npy"].shape == (FRAMES, *manifest.rows["moments"])
        assert sample["text.npy"].shape == (2, *manifest.rows["text"])
        assert sample["image.npy"].shape == (FRAMES, *manifest.rows["image"])
        towers = ToyTowers()
        assert np.array_equal(sample["text.npy"], towers.text_tokens(sample["json"]["captions"]).numpy())


def test_memory_is_bounded_by_frames_at_once(folder: Path, tmp_path: Path) -> None:
    towers = ToyTowers()
    encode_toy(folder / "set", tmp_path / "cache", towers, frames_at_once=4)
    assert towers.largest == 4


def test_another_packing_of_the_same_clips_finds_them(folder: Path, tmp_path: Path) -> None:
    pack_quietly(folder / "raw", tmp_path / "set", min_shards=2, seed=3)
    cached = encoded(loader(tmp_path / "set", cache=str(folder / "cache")), 4)
    for batch, pixels in zip(cached, take(loader(tmp_path / "set"), 4), strict=True):
        assert_encodes(batch, pixels, 0)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("resolution", "encoded at 24x32, this run has data.resolution=.32, 32.;"),
        ("captions", "7 of 7 clips of .*other-set split train are not in it as they are now"),
        ("missing clip", "1 of 8 clips of .*other-set split train are not in it as they are now .first: train-0000"),
        ("missing file", "train-000000.tar: is missing"),
        ("cut file", "train-000000.tar: has 5 bytes"),
        ("shards", "not a cache of encoded clips"),
        ("nothing", "does not exist"),
        ("split", "3 of 3 clips of .*set split test are not in it"),
    ],
)
def test_a_stale_cache_is_refused_in_one_line(folder: Path, tmp_path: Path, fault: str, message: str) -> None:
    shards, cache = folder / "set", folder / "cache"
    changes: dict[str, Any] = {}
    if fault == "resolution":
        changes = {"resolution": [32, 32]}
    elif fault in ("captions", "missing clip"):
        shards = tmp_path / "other-set"
        count = 11 if fault == "missing clip" else 10
        splits = ["train"] * 7 + ["test"] * 3 + ["train"] * (count - 10)
        raw = clips_folder(tmp_path / "raw", clips=count, frames=FRAMES, splits=splits)
        if fault == "captions":
            (raw / "captions.json").write_text((raw / "captions.json").read_text().replace("place", "spot"))
        pack_quietly(raw, shards, min_shards=4)
    elif fault in ("missing file", "cut file"):
        cache = copy_set(cache, tmp_path / "cache")
        (cache / "train-000000.tar").unlink()
        if fault == "cut file":
            (cache / "train-000000.tar").write_bytes(b"short")
    elif fault == "split":
        cache = tmp_path / "cache"
        encode_toy(shards, cache, splits=["train"])
        changes = {"split": "test"}
    else:
        cache = folder / ("set" if fault == "shards" else "nowhere")
    with pytest.raises(ValueError, match=message) as caught:
        loader(shards, cache=str(cache), **changes)
    assert "cami2v data encode shards=" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_encoder_is_refused(folder: Path) -> None:
    cache = loader(folder / "set", cache=str(folder / "cache")).cache
    assert cache is not None
    cache.check_encoders(IDENTITIES)
    for name in IDENTITIES:
        with pytest.raises(ValueError, match=f"encoded by another {name} encoder .*cami2v data encode shards="):
            cache.check_encoders(IDENTITIES | {name: "other"})


def test_a_damaged_entry_is_replaced_like_a_damaged_clip(folder: Path, tmp_path: Path) -> None:
    cache = copy_set(folder / "cache", tmp_path / "cache")
    shard, sample = next(
        (path, each) for path in cache.glob("train-*.tar") for each in read_index(path) if each.key == "clip2"
    )
    member = sample.members["moments.npy"]
    data = bytearray(shard.read_bytes())
    for frame in range(FRAMES):
        data[member.offset + HEADER_BYTES + frame * (member.size - HEADER_BYTES) // FRAMES] ^= 1
    shard.write_bytes(data)
    damaged = copy_set(folder / "set", tmp_path / "set")
    flip_bit(damaged, "clip2")
    plain = loader(damaged)
    expected = rows(take(plain, 8))
    replaced = [(each.sample, each.clip, each.reason) for each in plain.take_skipped()]
    assert {(clip, reason) for _, clip, reason in replaced} == {("clip2", "member_damaged")}
    for workers in (0, 2):
        cached = loader(folder / "set", cache=str(cache), num_workers=workers)
        assert rows(encoded(cached, 8)) == expected
        skipped = cached.take_skipped()
        assert [(each.sample, each.clip, each.reason) for each in skipped] == replaced
        assert ".moments.npy is damaged" in skipped[0].message


def test_a_clip_that_cannot_be_encoded_is_left_out_and_named(folder: Path, tmp_path: Path) -> None:
    damaged = copy_set(folder / "set", tmp_path / "set")
    flip_bit(damaged, "clip2")
    manifest = encode_toy(damaged, tmp_path / "cache").manifest
    assert manifest is not None
    (why,) = [why for shards in manifest.splits.values() for shard in shards for why in shard.unusable.values()]
    assert "sample clip2: .mp4 is damaged" in why
    cached = loader(damaged, cache=str(tmp_path / "cache"))
    assert rows(encoded(cached, 8)) == rows(take(loader(damaged), 8))
    assert {each.clip for each in cached.take_skipped()} == {"clip2"}


def test_kill_and_restart_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    partial = tmp_path / ".cache.partial"
    command = [sys.executable, "-m", "tests.data_pipeline.cache.toy_towers", str(folder / "set"), f"{tmp_path}/cache"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list((partial / "finished").glob("*.json"))) < 2:
        assert process.poll() is None, "it was faster than the test"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cache").exists()
    with pytest.raises(ValueError, match="finished shards of an interrupted run .*encode.overwrite=true"):
        encode_toy(folder / "set", tmp_path / "cache", frames_at_once=5)
    towers = ToyTowers()
    encode_toy(folder / "set", tmp_path / "cache", towers)
    assert towers.frames < 10 * FRAMES
    assert contents(tmp_path / "cache") == contents(folder / "cache")
    assert not partial.exists()


def test_tasks_share_a_cache_and_an_equal_one_is_kept(folder: Path, tmp_path: Path) -> None:
    first = encode_toy(folder / "set", tmp_path / "cache", task=1, tasks=2)
    assert first.manifest is None
    assert first.shards_missing > 0
    encode_toy(folder / "set", tmp_path / "cache", task=0, tasks=2)
    assert contents(tmp_path / "cache") == contents(folder / "cache")
    again = encode_toy(folder / "set", tmp_path / "cache")
    assert again.clips_encoded == 0
    with pytest.raises(ValueError, match="holds a cache of other clips, encoders or settings.*encode.overwrite=true"):
        encode_toy(folder / "set", tmp_path / "cache", dtype=NumberFormat.FP16)
    encode_toy(folder / "set", tmp_path / "cache", dtype=NumberFormat.FP16, overwrite=True)
    assert read_cache_manifest(tmp_path / "cache").encoding.dtype is NumberFormat.FP16


def test_wrong_settings_and_outputs_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exists and is not a cache of this version"):
        encode_toy(folder / "set", folder / "set")
    with pytest.raises(ValueError, match="no such split"):
        encode_toy(folder / "set", tmp_path / "cache", splits=["tset"])
    with pytest.raises(ValueError, match="encode.task=0: is one of how many"):
        encode_toy(folder / "set", tmp_path / "cache", task=0, tasks=None)
    huge = torch.full((1, 2), 1e30)
    with pytest.raises(ValueError, match="not finite as fp16 .*try encode.dtype=bf16 or fp32"):
        NumberFormat.FP16.store(huge, "moments")
    assert torch.equal(NumberFormat.BF16.tensor(NumberFormat.BF16.store(huge, "moments")), huge.to(torch.bfloat16))
    assert not (tmp_path / "cache").exists()
    assert SETTINGS.frames_at_once < FRAMES, "clips are encoded in several pieces"
    shutil.rmtree(tmp_path)


def test_checksums_see_what_happens_to_disks() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float16)  # 70 bytes each: no whole 64-bit numbers
    sums = checksums(rows)
    assert len(set(sums.tolist())) == 3
    assert np.array_equal(checksums(rows[1:2]), sums[1:2])
    for byte in range(rows[0].nbytes):
        for damage in (lambda old: old ^ 1, lambda old: old ^ 128):
            changed = rows[:1].copy()
            flat = changed.reshape(-1).view(np.uint8)
            flat[byte] = damage(int(flat[byte]))
            assert checksums(changed)[0] != sums[0]
    assert checksums(np.zeros_like(rows))[0] not in sums


def test_a_decoding_process_that_dies_is_one_line(folder: Path, tmp_path: Path) -> None:
    class Murderer(ToyTowers):
        def moments(self, frames: torch.Tensor) -> torch.Tensor:
            for worker in multiprocessing.active_children():
                worker.kill()
            return super().moments(frames)

    expected = "a loader worker died .* while it decoded videos; .* the same command continues"
    with pytest.raises(ValueError, match=expected) as caught:
        encode_toy(folder / "set", tmp_path / "cache", Murderer(), num_workers=1, frames_at_once=1)
    assert "\n" not in str(caught.value)
