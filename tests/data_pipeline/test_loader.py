"""The loader: the same samples for any number of processes and workers, exact resume, clear refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cami2v.batch import ClipBatch, TrainingBatch
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.training.prefetch import Deliveries
from cami2v.video import write_mp4
from data_pipeline.index import read_index, read_sample
from data_pipeline.loader import ClipLoader
from data_pipeline.manifest import read_manifest
from tests.data_pipeline.raw_folders import HEIGHT, WIDTH, clips_folder, pack_quietly


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loader")
    splits = ["train"] * 7 + ["test"] * 3
    pack_quietly(clips_folder(folder / "raw", clips=10, frames=30, splits=splits), folder / "set", min_shards=4)
    return folder / "set"


def loader(folder: Path, /, **changes: Any) -> ClipLoader:
    settings: dict[str, Any] = {
        "shards": str(folder),
        "split": "train",
        "frames": 4,
        "resolution": [24, 32],
        "frame_stride": [1, 6],
        "num_workers": 0,
        "scale_policy": ScalePolicy.RELATIVE,
        "shuffle_window_shards": 2,
        "shared_shards": "refuse",
    }
    return ClipLoader(**(settings | changes))


def take(source: ClipLoader, batches: int, **request: int) -> list[ClipBatch]:
    stream = source.stream(**({"micro_batch_size": 2, "rank": 0, "world_size": 1, "seed": 5, "start": 0} | request))
    taken = []
    for batch in islice(stream, batches):
        assert isinstance(batch, ClipBatch)
        taken.append(batch)
    return taken


def assert_equal(left: ClipBatch, right: ClipBatch) -> None:
    assert left.clip_ids == right.clip_ids
    assert left.captions == right.captions
    for name in ("seeds", "video", "frame_indices", "frame_stride", "frames_per_second"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
    for name in ("world_to_camera", "intrinsics_pixels", "translation_scale"):
        assert torch.equal(getattr(left.cameras, name), getattr(right.cameras, name)), name


def rows(batches: Sequence[TrainingBatch]) -> list[tuple[str, str, int, list[int]]]:
    return [
        (clip, caption, int(seed), indices.tolist())
        for batch in batches
        for clip, caption, seed, indices in zip(
            batch.clip_ids, batch.captions, batch.seeds, batch.frame_indices, strict=True
        )
    ]


def shown_levels(batch: ClipBatch) -> list[list[int]]:
    grey = (batch.video[..., batch.video.shape[-2] // 2 :, :].mean(dim=(1, 3, 4)) + 1) * 127.5
    return [[round((value - 4) / 5) for value in row] for row in grey.tolist()]


def test_a_batch_holds_what_it_says(shards: Path) -> None:
    for batch in take(loader(shards), 6):
        assert batch.video.shape == (2, 3, 4, 24, 32)
        assert batch.video.dtype == torch.float32
        assert -1 - 1e-6 <= batch.video.min() < batch.video.max() <= 1 + 1e-6
        assert shown_levels(batch) == batch.frame_indices.tolist()
        steps = batch.frame_indices.diff(dim=1)
        assert torch.equal(steps, batch.frame_stride[:, None].expand(-1, 3))
        torch.testing.assert_close(batch.frames_per_second, 30.0 / batch.frame_stride)
        # world_to_camera of frame k starts its last column with 0.1 k (raw_folders.camera).
        torch.testing.assert_close(batch.cameras.world_to_camera[:, :, 0, 3], 0.1 * batch.frame_indices.double())
        number = int(batch.clip_ids[0].removeprefix("clip"))
        assert batch.captions[0] in (f"room {number}", f"place {number}")
        assert (batch.cameras.height, batch.cameras.width) == (24, 32)
        focal = 0.5 * WIDTH / HEIGHT * 24
        expected = torch.tensor([0.5 * int(WIDTH * 24 / HEIGHT), focal, 16, 12]).double()
        torch.testing.assert_close(batch.cameras.intrinsics_pixels[0, 0], expected, atol=0.5, rtol=0)


def test_strides_starts_and_captions_vary(shards: Path) -> None:
    seen = rows(take(loader(shards), 40))
    assert {indices[1] - indices[0] for *_, indices in seen} == {1, 2, 3, 4, 5, 6}
    assert len({indices[0] for *_, indices in seen}) > 8
    assert {caption.split()[0] for _, caption, *_ in seen} == {"room", "place"}


def test_the_global_batch_does_not_depend_on_the_number_of_processes(shards: Path) -> None:
    alone = rows(take(loader(shards), 6, micro_batch_size=4))
    for world_size, micro in ((2, 2), (4, 1), (2, 1)):
        steps = 24 // (world_size * micro)
        parts = [
            take(loader(shards), steps, micro_batch_size=micro, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        together = [row for step in range(steps) for part in parts for row in rows([part[step]])]
        assert together == alone


def test_workers_do_not_change_the_batches(shards: Path) -> None:
    for left, right in zip(take(loader(shards), 5), take(loader(shards, num_workers=2), 5), strict=True):
        assert_equal(left, right)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resume_is_exact_across_an_epoch(shards: Path, num_workers: int) -> None:
    whole = take(loader(shards), 6)
    resumed = take(loader(shards, num_workers=num_workers), 3, start=6)  # seven clips: batch 3 lies across two epochs
    for left, right in zip(whole[3:], resumed, strict=True):
        assert_equal(left, right)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_read_one_ahead_in_a_thread_the_batches_are_the_same(shards: Path, num_workers: int) -> None:
    stream = loader(shards, num_workers=num_workers).stream(
        micro_batch_size=2, rank=0, world_size=1, seed=5, start=0
    )  # fmt: skip
    with Deliveries(stream, count=5, copy=lambda batch: lambda: batch) as deliveries:
        delivered = [deliveries.next().batch for _ in range(5)]
    for left, right in zip(take(loader(shards), 5), delivered, strict=True):
        assert isinstance(right, ClipBatch)
        assert_equal(left, right)


def test_resume_far_into_training_reads_nothing_before(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments)
        return read_sample(*arguments)

    monkeypatch.setattr("data_pipeline.shard_store.read_sample", counted)
    take(loader(shards), 1, start=7_000_000)
    assert len(calls) == 2


def test_the_global_random_state_is_left_alone(shards: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    take(loader(shards, num_workers=1), 1)
    assert torch.equal(torch.rand(3), expected)


def test_fixed_clips_are_the_same_every_time(shards: Path) -> None:
    source = loader(shards, split="test")
    whole = list(source.fixed(count=None, rank=0, world_size=1, seed=1))
    assert source.num_samples == len(whole) == 3
    keys = [sample.key for entry in source.split.shards for sample in read_index(shards / entry.name)]
    assert [batch.clip_ids[0] for batch in whole] == keys
    for batch in whole:
        assert batch.frame_indices.tolist() == [[0, 3, 6, 9]]
        assert batch.captions[0].startswith("room")
    ranks = [list(source.fixed(count=None, rank=rank, world_size=2, seed=1)) for rank in range(2)]
    assert [len(part) for part in ranks] == [2, 1]
    assert_equal(ranks[1][0], whole[1])
    assert len(list(source.fixed(count=2, rank=0, world_size=1, seed=1))) == 2
    with pytest.raises(ValueError, match="9 clips asked for, but .* split test has 3"):
        next(source.fixed(count=9, rank=0, world_size=1, seed=1))


def test_held_out_clips_may_have_a_stride_of_their_own(shards: Path) -> None:
    source = loader(shards, split="test", evaluation_frame_stride=8)
    assert [batch.frame_indices.tolist() for batch in source.fixed(count=1, rank=0, world_size=1, seed=1)] == [
        [[0, 8, 16, 24]]
    ]
    assert {int(stride) for batch in take(source, 6) for stride in batch.frame_stride} - {8}
    with pytest.raises(ValueError, match="data.evaluation_frame_stride=0: must be at least 1, or null"):
        loader(shards, evaluation_frame_stride=0)


def test_scale_policies(shards: Path) -> None:
    relative = take(loader(shards), 1)[0].cameras
    assert torch.equal(relative.translation_scale, torch.ones(2, 4, dtype=torch.float64))
    normalized = take(loader(shards, scale_policy=ScalePolicy.FIRST_FRAME_NORMALIZED), 1)[0].cameras
    centres = -torch.einsum("btji,btj->bti", normalized.world_to_camera[..., :3], normalized.world_to_camera[..., 3])
    reach = (centres - centres[:, :1]).norm(dim=-1).max(dim=1).values
    torch.testing.assert_close(normalized.translation_scale * reach[:, None], torch.ones(2, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match="data.scale_policy=metric: not every clip of .* has a metric scale; pack a"):
        loader(shards, scale_policy=ScalePolicy.METRIC)


@pytest.mark.parametrize("policy", ScalePolicy)
def test_null_means_the_policy_the_set_was_packed_with(policy: ScalePolicy, tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=1, frames=8)
    (raw / "metric_scale.json").write_text(json.dumps({"clip0": 2.5}))
    pack_quietly(raw, tmp_path / "set", splits={"train": 1.0}, scale_policy=policy.value)
    manifest = read_manifest(tmp_path / "set")
    assert (manifest.scale_policy, manifest.is_metric) == (policy.value, True)
    own = loader(tmp_path / "set", scale_policy=None, max_skip_rate=0.02)
    assert own.settings.scale_policy is own.evaluation_settings.scale_policy is policy
    request = {"micro_batch_size": 1}
    scales = {each: take(loader(tmp_path / "set", scale_policy=each), 1, **request)[0].cameras for each in ScalePolicy}
    found = take(own, 1, **request)[0].cameras.translation_scale
    assert torch.equal(found, scales[policy].translation_scale)
    assert all(not torch.equal(found, scales[each].translation_scale) for each in ScalePolicy if each is not policy)


def test_a_policy_of_the_manifest_that_nobody_knows_is_refused(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "set")
    path = tmp_path / "set" / "manifest.json"
    path.write_text(path.read_text().replace('"scale_policy": "relative"', '"scale_policy": "furlongs"'))
    with pytest.raises(ValueError, match=r"manifest says scale_policy='furlongs', expected one of \['relative'"):
        loader(tmp_path / "set", scale_policy=None)


def test_fewer_shards_than_readers_is_refused(shards: Path) -> None:
    loader(shards, num_workers=2).validate(world_size=2)
    message = r"4 shards for 6 readers \(2 processes x 3 workers\); lower data.num_workers to 2, .*min_shards=6"
    with pytest.raises(ValueError, match=message):
        loader(shards, num_workers=3).validate(world_size=2)
    with pytest.raises(ValueError, match="use at most 4 processes"):
        take(loader(shards), 1, world_size=5)
    loader(shards, num_workers=3, shared_shards="allow").validate(world_size=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "tets"}, r"data.split=tets: .* \(it has: test, train\)"),
        ({"shards": "nowhere/at/all"}, r"data.shards=nowhere/at/all: does not exist; write one with `cami2v pack"),
        ({"frames": 31, "max_skip_rate": 0.0}, r"has a clip of 30 frames, fewer than data.frames=31"),
        ({"frames": 0}, "data.frames=0"),
        ({"resolution": [256]}, r"data.resolution=\[256\]: expected \[height, width\]"),
        ({"frame_stride": [5, 2]}, "min is above max"),
        ({"frame_stride": 0}, "data.frame_stride=0"),
        ({"num_workers": -1}, "data.num_workers=-1"),
        ({"shuffle_window_shards": 0}, "data.shuffle_window_shards=0"),
    ],
)
def test_wrong_settings_are_refused_before_reading(shards: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(shards, **changes)


def edited(shards: Path, folder: Path, edit: Any) -> Path:
    for path in shards.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(version=2), "format version 2, this program reads 1"),
        (lambda m: m.update(format="webvid"), "not a manifest of posed clips"),
        (lambda m: m.pop("splits"), "incomplete"),
        (lambda m: m["splits"]["test"]["sources"].append("src0"), r"share 1 source videos \(src0\)"),
        (lambda m: m["splits"]["train"].update(samples=0), "holds no clips"),
        (lambda m: m["splits"]["train"].update(samples=8), "shards hold 7 clips, the manifest 8"),
        (lambda m: m["splits"]["train"]["shards"][0].update(bytes=3), "the manifest says 3"),
        (lambda m: m["splits"]["train"]["shards"][0].update(name="train-9.tar"), "train-9.tar: the manifest lists"),
    ],
)
def test_a_set_that_contradicts_its_manifest_is_refused(shards: Path, tmp_path: Path, edit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(edited(shards, tmp_path, edit))


def test_no_manifest_no_set(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no manifest.json, so it is no complete shard set"):
        loader(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not a JSON file"):
        loader(tmp_path)


def test_a_point_projects_to_the_same_content_after_loading(tmp_path: Path) -> None:
    """A bright square at a known place of a squashed, off-centre source must land where the moved intrinsics say."""
    height, width, focal = 60, 64, (1.0, 1.6)  # stored pixels are 1.5 times as wide as high
    raw = tmp_path / "raw"
    principal = (0.55, 0.45)
    ray = np.array([0.11, -0.08])
    x, y = (np.array(focal) * ray + principal) * [width, height]
    rows_, columns = np.mgrid[0:height, 0:width] + 0.5
    blob = 255 * np.exp(-(((columns - x) / 2) ** 2 + ((rows_ - y) / 3) ** 2))
    frames = np.repeat(blob.astype(np.uint8)[None, :, :, None], 4, axis=0).repeat(3, axis=3)
    write_mp4(raw / "video_clips" / "a.mp4", frames, 8, crf=4)
    lines = ["https://x.invalid/watch?v=s"]
    lines += [f"{k} {focal[0]} {focal[1]} {principal[0]} {principal[1]} 0 0 1 0 0 0 0 1 0 0 0 0 1 0" for k in range(4)]
    (raw / "pose_files").mkdir()
    (raw / "pose_files" / "a.txt").write_text("\n".join(lines))
    pack_quietly(raw, tmp_path / "set", default_caption="", splits={"train": 1.0})
    batch = take(loader(tmp_path / "set", resolution=[48, 40], frame_stride=1), 1, micro_batch_size=1)[0]
    fx, fy, cx, cy = batch.cameras.intrinsics_pixels[0, 0].tolist()
    assert fx == pytest.approx(fy, rel=0.02)  # widths are whole pixels
    weight = (batch.video[0, :, 0].mean(dim=0) + 1).double() - 0.02
    weight = weight.clamp(min=0)
    grid_y, grid_x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    found = [float((weight * grid).sum() / weight.sum()) for grid in (grid_x, grid_y)]
    assert found == pytest.approx([fx * ray[0] + cx, fy * ray[1] + cy], abs=0.3)
