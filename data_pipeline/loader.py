"""Shards -> ClipBatch: the loader of training, validation and evaluation."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Container, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch.utils.data import DataLoader

from cami2v.batch import Clip, ClipBatch, EncodedClip, SkippedClip, TrainingBatch
from cami2v.geometry.framing import PrincipalPoint
from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline.cache.clips import ConditionFrameOf, EncodedClips, collate_encoded, first_frame
from data_pipeline.cache.read import ClipCache
from data_pipeline.chosen_clips import ChosenClips
from data_pipeline.dataset import ClipSettings, Failure, Loaded, OrderedClips, ShuffledClips, StoredClips
from data_pipeline.evaluation_manifest import EvaluationManifest, ManifestClip, manifest_of
from data_pipeline.frozen_split import read_frozen_split
from data_pipeline.manifest import Manifest, Split, read_manifest
from data_pipeline.order import Order, micro_batches
from data_pipeline.shard_store import CachedShards, ShardStore, open_store
from data_pipeline.stages import collate
from data_pipeline.unusable import UnusableClip
from data_pipeline.workers import outlive_signals, watched

logger = logging.getLogger(__name__)


class ClipLoader:
    """Batches of clips from one split of a shard set.

    Which clip sample number n is, and every random draw for it, depend on the seed and n alone: not on the number of
    processes, the number of workers, or where a run was resumed. `evaluation_frame_stride` is the stride of `fixed`
    clips; None: `frame_stride`, the middle of a range. `scale_policy` None is the set's own.

    `shards` is a folder or the address of one (docs/loader.md); shards behind an address are kept in `cache_folder`, of
    `cache_gigabytes` at most (None: all of them), and a server may be silent for `timeout_seconds`. A training run
    stops where more than the share `max_skip_rate` of its samples had to be replaced. With `frozen_split`
    (docs/data-format.md) a split of that name must be the frozen one, and another must have none of its sources.

    With `cache`, a folder of `cami2v data encode` (docs/caches.md), training batches come encoded, each sample's image
    being its `condition_frame`, as the model draws it; `fixed` clips and `glance` keep coming from the videos.
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
        scale_policy: ScalePolicy | None,
        shuffle_window_shards: int,
        shared_shards: Literal["refuse", "allow"],
        principal_point: PrincipalPoint = "cropped",
        evaluation_frame_stride: int | None = None,
        max_skip_rate: float = 0.02,
        cache_folder: str = "~/.cache/cami2v/shards",
        cache_gigabytes: float | None = None,
        timeout_seconds: float = 30.0,
        frozen_split: str | None = None,
        cache: str | None = None,
        condition_frame: ConditionFrameOf = first_frame,
    ) -> None:
        _require(frames >= 1, f"data.frames={frames}: must be at least 1")
        _require(num_workers >= 0, f"data.num_workers={num_workers}: must be 0 (load in the main process) or more")
        _require(shuffle_window_shards >= 1, f"data.shuffle_window_shards={shuffle_window_shards}: must be at least 1")
        _require(0 <= max_skip_rate <= 1, f"data.max_skip_rate={max_skip_rate}: must be a share between 0 and 1")
        _require(timeout_seconds > 0, f"data.timeout_seconds={timeout_seconds}: must be above 0")
        self.max_skip_rate = max_skip_rate
        # Filled by whoever asks for batches, maybe a thread, and taken by the main one.
        self._skipped: deque[SkippedClip] = deque()
        self.split_name = split
        self.num_workers = num_workers
        self.shuffle_window_shards = shuffle_window_shards
        self.shared_shards = shared_shards
        size, stride = _pair(resolution, "data.resolution", "[height, width]"), _stride(frame_stride)
        if evaluation_frame_stride is not None:
            _require(
                evaluation_frame_stride >= 1,
                f"data.evaluation_frame_stride={evaluation_frame_stride}: must be at least 1, or null",
            )
        self.store = open_store(
            shards, cache_folder=cache_folder, cache_gigabytes=cache_gigabytes, timeout_seconds=timeout_seconds
        )
        self.folder = self.store.folder
        self.manifest = read_manifest(self.folder)
        self.settings = ClipSettings(
            frames=frames,
            resolution=size,
            frame_stride=stride,
            scale_policy=_scale_policy(scale_policy, self.manifest, self.folder),
            principal_point=principal_point,
        )
        self.evaluation_settings = replace(self.settings, frame_stride=evaluation_frame_stride or stride)
        self.split: Split = self.manifest.split(split, str(self.folder))
        if frozen_split is not None:
            read_frozen_split(frozen_split, "data.frozen_split").check(self.manifest, split, shards)
        _check_shards(self.store, self.split, split)
        self._check_lengths(refuse=max_skip_rate == 0)
        self._warn_of_enlarging()
        self.condition_frame = condition_frame
        self.cache: ClipCache | None = None
        if cache is not None:
            self.cache = ClipCache(
                Path(cache).expanduser(),
                store=self.store,
                split_name=split,
                split=self.split,
                resolution=self.settings.resolution,
            )
        if isinstance(self.store, CachedShards):
            _check_cache_size(self.store, self.split, cache_gigabytes, shuffle_window_shards)

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
    ) -> Iterator[TrainingBatch]:
        """Yield this process's training batches without end, from global sample number `start` on.

        A clip that cannot be used is replaced, by seed and sample number alone: `take_skipped` tells. Raises
        ValueError, in one line, for a shard that cannot be read and for a worker that died.
        """
        self.validate(world_size)
        self._skipped.clear()
        order = Order(
            samples_per_shard=tuple(shard.samples for shard in self.split.shards),
            shuffle_window_shards=self.shuffle_window_shards,
            seed=seed,
        )
        numbers = micro_batches(start=start, micro_batch_size=micro_batch_size, rank=rank, world_size=world_size)
        return self._batches(self._shuffled(order), numbers)

    def without_cache(self) -> ClipLoader:
        """Return a loader of the same batches from the videos."""
        loader = copy(self)
        loader.cache, loader._skipped = None, deque()
        return loader

    def take_skipped(self) -> list[SkippedClip]:
        """Return the clips that were replaced in the batches yielded since the last call."""
        return [self._skipped.popleft() for _ in range(len(self._skipped))]

    def fixed(self, *, count: int | None, rank: int, world_size: int, seed: int) -> Iterator[ClipBatch]:
        """Yield the first `count` clips (None: all) once, one per batch, dealt out over the processes.

        Manifest order, first frames, first caption: the same clips for every method that is compared. Raises
        ValueError, naming shard and sample key, for a clip that cannot be used: none is replaced.
        """
        self._check_lengths(refuse=True)
        self._check_count(count)
        numbers = ([number] for number in range(rank, count or self.num_samples, world_size))
        for batch in self._batches(self._ordered(seed, self.num_workers), numbers):
            assert isinstance(batch, ClipBatch), "clips in manifest order are decoded"
            yield batch

    def first_clips(self, *, count: int | None, seed: int) -> EvaluationManifest:
        """Describe the clips, frames, captions and seeds of `fixed`; raises ValueError like it."""
        self._check_lengths(refuse=True)
        self._check_count(count)
        clips = self.chosen((), "evaluation.manifest")
        return manifest_of(list(clips.describe_first(count or self.num_samples, seed)))

    def chosen(self, clips: Sequence[ManifestClip], source: str) -> ChosenClips:
        """Find clips of an evaluation manifest in this split; raises ValueError, naming `source`, for missing ones."""
        return ChosenClips(self.store, self.split, self.evaluation_settings, self.num_workers, clips, source)

    def chosen_batches(self, chosen: ChosenClips, clip_ids: Container[str]) -> Iterator[ClipBatch]:
        """Yield those of the chosen clips that `clip_ids` has, once, one per batch, in the order of the shards.

        Raises ValueError, naming shard and sample key, for a clip that cannot be used.
        """
        numbers = ([number] for number, clip in enumerate(chosen.clips) if clip.clip_id in clip_ids)
        for batch in self._batches(chosen, numbers):
            assert isinstance(batch, ClipBatch), "chosen clips are decoded"
            yield batch

    def glance(self, *, count: int, seed: int) -> Iterator[ClipBatch]:
        """Yield up to `count` clips as `fixed` does, past those that cannot be used: to look at, not to compare with.

        Raises ValueError where none of the first hundred can be used.
        """
        clips = self._ordered(seed, 0)
        found, last = 0, None
        for number in range(min(self.num_samples, 100)):
            try:
                clip = clips.load(number).clip
            except UnusableClip as error:
                last = error
                continue
            assert isinstance(clip, Clip), "clips in manifest order are decoded"
            yield collate([clip])
            found += 1
            if found == count:
                return
        if last is not None and not found:
            raise last

    def _shuffled(self, order: Order) -> ShuffledClips:
        source = (self.store, self.split, self.settings, self.num_workers, order)
        if self.cache is None:
            return ShuffledClips(*source)
        return EncodedClips(*source, cache=self.cache, condition_frame=self.condition_frame)

    def _ordered(self, seed: int, workers: int) -> OrderedClips:
        return OrderedClips(self.store, self.split, self.evaluation_settings, workers, seed)

    def _batches(self, clips: StoredClips, numbers: Iterable[list[int]]) -> Iterator[TrainingBatch]:
        try:
            yield from self._loaded(clips, numbers)
        finally:
            clips.ahead.close()

    def _loaded(self, clips: StoredClips, numbers: Iterable[list[int]]) -> Iterator[TrainingBatch]:
        loader = DataLoader(
            clips,
            batch_sampler=numbers,
            num_workers=self.num_workers,
            collate_fn=_collate,
            worker_init_fn=outlive_signals,
            # DataLoader draws a seed for its workers; from its own generator, so that the global one stays untouched.
            generator=torch.Generator().manual_seed(0),
        )
        for loaded in watched(loader, clips.last_words):
            if isinstance(loaded, Failure):
                raise ValueError(loaded.message)
            self._skipped.extend(loaded.skipped)
            yield loaded.batch

    def _check_count(self, count: int | None) -> None:
        _require(
            count is None or 1 <= count <= self.num_samples,
            f"{count} clips asked for, but {self.folder} split {self.split_name} has {self.num_samples}",
        )

    def _check_lengths(self, *, refuse: bool) -> None:
        """Refuse clips shorter than `data.frames`, or say that training will replace them."""
        frames = self.settings.frames
        short = [shard for shard in self.split.shards if shard.shortest_clip_frames < frames]
        if not short:
            return
        fewest = min(short, key=lambda shard: shard.shortest_clip_frames)
        message = (
            f"{self.store.name}/{fewest.name}: has a clip of {fewest.shortest_clip_frames} frames, fewer than "
            f"data.frames={frames}; lower data.frames, or pack again with pack.min_frames={frames}"
        )
        _require(not refuse, message)
        logger.warning("%s. Training replaces such clips, up to data.max_skip_rate=%g", message, self.max_skip_rate)

    def _warn_of_enlarging(self) -> None:
        """Say where frames were made smaller than they are now wanted."""
        packed, wanted = self.manifest.frame_format.get("short_side"), min(self.settings.resolution)
        if isinstance(packed, int) and packed < wanted:
            logger.warning(
                "%s: packed with short_side %d, so that frames are enlarged to data.resolution=%s; pack again with "
                "pack.frame_format.short_side=%d",
                self.folder,
                packed,
                list(self.settings.resolution),
                wanted,
            )


@dataclass(frozen=True, slots=True)
class _LoadedBatch:
    batch: TrainingBatch
    skipped: tuple[SkippedClip, ...]


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


def _check_shards(store: ShardStore, split: Split, name: str) -> None:
    """Compare the folder with the manifest before a run starts; what is remote is checked when it comes."""
    folder = store.folder
    _require(split.samples > 0, f"{folder} split {name}: holds no clips; pack it again with clips in this split")
    total = sum(shard.samples for shard in split.shards)
    _require(total == split.samples, f"{folder} split {name}: shards hold {total} clips, the manifest {split.samples}")
    if isinstance(store, CachedShards):
        return
    for shard in split.shards:
        path = folder / shard.name
        _require(path.is_file(), f"{path}: the manifest lists this shard, but it is missing; copy it or pack again")
        size = path.stat().st_size
        _require(size == shard.bytes, f"{path}: {size} bytes, the manifest says {shard.bytes}; copy it or pack again")


def _check_cache_size(store: CachedShards, split: Split, gigabytes: float | None, window: int) -> None:
    """Refuse a cache that does not hold a shuffle window: it would fetch shards again and again."""
    needed = sum(sorted((shard.bytes for shard in split.shards), reverse=True)[:window])
    _require(
        store.limit_bytes is None or store.limit_bytes >= needed,
        f"data.cache_gigabytes={gigabytes}: the {min(window, len(split.shards))} shards of a shuffle window take "
        f"{needed / 1e9:.3g} GB; give more, or lower data.shuffle_window_shards={window}",
    )


def _collate(clips: list[Loaded | Failure]) -> _LoadedBatch | Failure:
    good: list[Loaded] = []
    for clip in clips:
        if isinstance(clip, Failure):
            return clip
        good.append(clip)
    skipped = tuple(skip for each in good for skip in each.skipped)
    encoded = [each.clip for each in good if isinstance(each.clip, EncodedClip)]
    if encoded:
        return _LoadedBatch(collate_encoded(encoded), skipped)
    return _LoadedBatch(collate([each.clip for each in good if isinstance(each.clip, Clip)]), skipped)


def _scale_policy(given: ScalePolicy | None, manifest: Manifest, folder: Path) -> ScalePolicy:
    """Return the policy to apply; raises ValueError for metres that are not known."""
    known = [policy.value for policy in ScalePolicy]
    _require(
        manifest.scale_policy in known,
        f"{folder}: its manifest says scale_policy={manifest.scale_policy!r}, expected one of {known}; pack again",
    )
    policy = ScalePolicy(manifest.scale_policy) if given is None else given
    _require(
        policy != ScalePolicy.METRIC or manifest.is_metric,
        f"data.scale_policy=metric: not every clip of {folder} has a metric scale; pack a folder that has them with "
        "pack.scale_policy=metric (estimate them: cami2v data scale source=<folder>, docs/metric-scale.md), or choose "
        "relative or first_frame_normalized",
    )
    return policy


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
