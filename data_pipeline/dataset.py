"""Clips of a split by sample number, each through all stages from the shard to the training clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from torch.utils.data import Dataset

from cami2v.batch import Clip, RawClip
from cami2v.geometry.framing import PrincipalPoint
from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline import stages
from data_pipeline.index import IndexedSample, read_index, read_sample
from data_pipeline.manifest import Split
from data_pipeline.order import Order, sample_seed
from data_pipeline.sampling import SampleRandom, first_frames, select_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipSettings:
    """How a stored clip becomes a training clip."""

    frames: int
    resolution: tuple[int, int]
    """height, width."""
    frame_stride: int | tuple[int, int]
    scale_policy: ScalePolicy
    principal_point: PrincipalPoint


@dataclass(frozen=True, slots=True)
class Failure:
    """A user-facing error on its way out of a worker process, which would bury it in a traceback."""

    message: str


class StoredClips(Dataset[Clip | Failure], ABC):
    """Clips of a split by sample number; subclasses say which clip and which frames a number means."""

    def __init__(self, folder: Path, split: Split, settings: ClipSettings) -> None:
        self.folder = folder
        self.split = split
        self.settings = settings
        self._indexes: dict[int, tuple[IndexedSample, ...]] = {}

    def __getitem__(self, number: int) -> Clip | Failure:
        try:
            return self.load(number)
        except ValueError as error:
            return Failure(str(error))

    @abstractmethod
    def load(self, number: int) -> Clip:
        """Return the clip of a sample number, ready to collate."""

    def read(self, shard: int, position: int) -> tuple[RawClip, str]:
        """Return a stored clip and its name for errors (shard and sample key)."""
        entry = self.split.shards[shard]
        path = self.folder / entry.name
        if shard not in self._indexes:
            self._indexes[shard] = read_index(path)
        samples = self._indexes[shard]
        if len(samples) != entry.samples:
            raise ValueError(
                f"{path}: {len(samples)} samples, the manifest says {entry.samples}; copy or pack it again"
            )
        where = f"{path} sample {samples[position].key}"
        members = read_sample(path, samples[position])
        return stages.parse_sample(members, scale_policy=self.settings.scale_policy, where=where), where


class ShuffledClips(StoredClips):
    """Training: number n is the n-th clip of the endless order, frames drawn by the sample's seed."""

    def __init__(self, folder: Path, split: Split, settings: ClipSettings, order: Order) -> None:
        super().__init__(folder, split, settings)
        self.order = order

    def load(self, number: int) -> Clip:
        """Return sample number `number` of the endless order."""
        raw, where = self.read(*self.order.clip(number))
        seed = sample_seed(self.order.seed, number)
        draw = SampleRandom(seed)
        caption = raw.captions[draw(0, len(raw.captions) - 1)]
        selection = select_frames(
            available=len(raw.world_to_camera),
            frames=self.settings.frames,
            stride=self.settings.frame_stride,
            random_integer=draw,
            where=where,
        )
        policy = self.settings.scale_policy
        clip = stages.decode(raw, selection, caption=caption, seed=seed, scale_policy=policy, where=where)
        return stages.resize_and_crop(clip, self.settings.resolution, self.settings.principal_point)


class OrderedClips(StoredClips):
    """Validation: number n is the n-th clip of the manifest, always the same frames."""

    def __init__(self, folder: Path, split: Split, settings: ClipSettings, seed: int) -> None:
        super().__init__(folder, split, settings)
        self.seed = seed
        self.first_of_shard = [0, *accumulate(shard.samples for shard in split.shards)]

    def load(self, number: int) -> Clip:
        """Return the clip at `number` in the manifest."""
        shard = max(index for index, first in enumerate(self.first_of_shard) if first <= number)
        raw, where = self.read(shard, number - self.first_of_shard[shard])
        selection = first_frames(
            available=len(raw.world_to_camera),
            frames=self.settings.frames,
            stride=self.settings.frame_stride,
            where=where,
        )
        clip = stages.decode(
            raw,
            selection,
            caption=raw.captions[0],
            seed=sample_seed(self.seed, number),
            scale_policy=self.settings.scale_policy,
            where=where,
        )
        return stages.resize_and_crop(clip, self.settings.resolution, self.settings.principal_point)
