"""Shards -> ClipBatch: the loader of training, validation and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader

from cami2v.batch import Clip, ClipBatch
from cami2v.geometry.framing import PrincipalPoint
from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline.dataset import ClipSettings, Failure, OrderedClips, ShuffledClips, StoredClips
from data_pipeline.manifest import Split, read_manifest
from data_pipeline.order import Order, micro_batches
from data_pipeline.stages import collate


class ClipLoader:
    """Batches of clips from one split of a shard set.

    Which clip sample number n is, and every random draw for it, depend on the seed and n alone: not on the number of
    processes, the number of workers, or where a run was resumed. `evaluation_frame_stride` is the stride of `fixed`
    clips; None: `frame_stride`, the middle of a range.
    """

    def __init__(
        self,
        *,
        shards: str,
        split: str,
        frames: int,
        resolution: Sequence[int],
        frame_stride: int | Sequence[int],
        num_workers: int,
        scale_policy: ScalePolicy,
        shuffle_window_shards: int,
        shared_shards: Literal["refuse", "allow"],
        principal_point: PrincipalPoint = "cropped",
        evaluation_frame_stride: int | None = None,
    ) -> None:
        _require(frames >= 1, f"data.frames={frames}: must be at least 1")
        _require(num_workers >= 0, f"data.num_workers={num_workers}: must be 0 (load in the main process) or more")
        _require(shuffle_window_shards >= 1, f"data.shuffle_window_shards={shuffle_window_shards}: must be at least 1")
        self.folder = Path(shards).expanduser()
        self.split_name = split
        self.num_workers = num_workers
        self.shuffle_window_shards = shuffle_window_shards
        self.shared_shards = shared_shards
        self.settings = ClipSettings(
            frames=frames,
            resolution=_pair(resolution, "data.resolution", "[height, width]"),
            frame_stride=_stride(frame_stride),
            scale_policy=scale_policy,
            principal_point=principal_point,
        )
        self.evaluation_settings = self.settings
        if evaluation_frame_stride is not None:
            _require(
                evaluation_frame_stride >= 1,
                f"data.evaluation_frame_stride={evaluation_frame_stride}: must be at least 1, or null",
            )
            self.evaluation_settings = replace(self.settings, frame_stride=evaluation_frame_stride)
        self.manifest = read_manifest(self.folder)
        _require(
            scale_policy != ScalePolicy.METRIC or self.manifest.scale_policy == ScalePolicy.METRIC,
            f"data.scale_policy=metric: not every clip of {self.folder} has a metric scale; pack a folder with a "
            "metric_scale.json (docs/pack.md), or choose relative or first_frame_normalized",
        )
        self.split: Split = self.manifest.split(split, str(self.folder))
        _check_shards(self.folder, self.split, split, frames)

    @property
    def num_samples(self) -> int:
        """Number of clips in the split."""
        return self.split.samples

    def validate(self, world_size: int) -> None:
        """Raise ValueError where there are fewer shards than reading processes (unless shared_shards=allow)."""
        check_shard_readers(
            shards=len(self.split.shards),
            world_size=world_size,
            num_workers=self.num_workers,
            shared_shards=self.shared_shards,
            where=f"{self.folder} split {self.split_name}",
        )

    def stream(
        self, *, micro_batch_size: int, rank: int, world_size: int, seed: int, start: int
    ) -> Iterator[ClipBatch]:
        """Yield this process's training batches without end, from global sample number `start` on.

        Raises ValueError, naming shard and sample key, for a sample that cannot be read: none is replaced.
        """
        self.validate(world_size)
        order = Order(
            samples_per_shard=tuple(shard.samples for shard in self.split.shards),
            shuffle_window_shards=self.shuffle_window_shards,
            seed=seed,
        )
        numbers = micro_batches(start=start, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size)
        return self._batches(ShuffledClips(self.folder, self.split, self.settings, order), numbers)

    def fixed(self, *, count: int | None, rank: int, world_size: int, seed: int) -> Iterator[ClipBatch]:
        """Yield the first `count` clips (None: all) once, one per batch, dealt out over the processes.

        Manifest order, first frames, first caption: the same clips for every method that is compared.
        """
        _require(
            count is None or 1 <= count <= self.num_samples,
            f"{count} clips asked for, but {self.folder} split {self.split_name} has {self.num_samples}",
        )
        numbers = ([number] for number in range(rank, count or self.num_samples, world_size))
        return self._batches(OrderedClips(self.folder, self.split, self.evaluation_settings, seed), numbers)

    def _batches(self, clips: StoredClips, numbers: Iterable[list[int]]) -> Iterator[ClipBatch]:
        loader = DataLoader(
            clips,
            batch_sampler=numbers,
            num_workers=self.num_workers,
            collate_fn=_collate,
            # DataLoader draws a seed for its workers; from its own generator, so that the global one stays untouched.
            generator=torch.Generator().manual_seed(0),
        )
        for batch in loader:
            if isinstance(batch, Failure):
                raise ValueError(batch.message)
            yield batch


def check_shard_readers(
    *, shards: int, world_size: int, num_workers: int, shared_shards: Literal["refuse", "allow"], where: str
) -> None:
    """Raise ValueError where reading processes outnumber shards, unless `shared_shards` is `allow`."""
    readers = world_size * max(num_workers, 1)
    if shards < readers and shared_shards == "refuse":
        fitting = shards // world_size
        lower = f"lower data.num_workers to {fitting}" if fitting else f"use at most {shards} processes"
        raise ValueError(
            f"{where}: {shards} shards for {readers} readers ({world_size} processes x {max(num_workers, 1)} workers); "
            f"{lower}, pack again with pack.min_shards={readers}, or set data.shared_shards=allow"
        )


def _check_shards(folder: Path, split: Split, name: str, frames: int) -> None:
    """Compare the folder with the manifest before a run starts."""
    _require(split.samples > 0, f"{folder} split {name}: holds no clips; pack it again with clips in this split")
    total = sum(shard.samples for shard in split.shards)
    _require(total == split.samples, f"{folder} split {name}: shards hold {total} clips, the manifest {split.samples}")
    for shard in split.shards:
        path = folder / shard.name
        _require(path.is_file(), f"{path}: the manifest lists this shard, but it is missing; copy it or pack again")
        size = path.stat().st_size
        _require(size == shard.bytes, f"{path}: {size} bytes, the manifest says {shard.bytes}; copy it or pack again")
        _require(
            shard.shortest_clip_frames >= frames,
            f"{path}: has a clip of {shard.shortest_clip_frames} frames, fewer than data.frames={frames}; "
            f"lower data.frames, or pack again with pack.min_frames={frames}",
        )


def _collate(clips: list[Clip | Failure]) -> ClipBatch | Failure:
    good = []
    for clip in clips:
        if isinstance(clip, Failure):
            return clip
        good.append(clip)
    return collate(good)


def _pair(values: Sequence[int], key: str, meaning: str) -> tuple[int, int]:
    _require(len(values) == 2 and min(values) >= 1, f"{key}={list(values)}: expected {meaning}, both at least 1")
    return int(values[0]), int(values[1])


def _stride(value: int | Sequence[int]) -> int | tuple[int, int]:
    if isinstance(value, int):
        _require(value >= 1, f"data.frame_stride={value}: must be at least 1")
        return value
    low, high = _pair(value, "data.frame_stride", "a number or [min, max]")
    _require(low <= high, f"data.frame_stride={[low, high]}: min is above max")
    return low, high


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
