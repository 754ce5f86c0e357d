"""Clips of a split by sample number, each through all stages from the shard to the training clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from multiprocessing.process import BaseProcess

from torch.utils.data import Dataset

from cami2v.batch import Clip, EncodedClip, RawClip, SkippedClip
from cami2v.geometry.framing import PrincipalPoint
from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline import stages
from data_pipeline.index import IndexedSample, read_index
from data_pipeline.manifest import ShardEntry, Split
from data_pipeline.order import Order, sample_seed
from data_pipeline.read_ahead import ReadAhead, Upcoming
from data_pipeline.sampling import FrameSelection, SampleRandom, first_frames, select_frames
from data_pipeline.shard_store import ShardStore
from data_pipeline.unusable import Unusable, UnusableClip, unusable
from data_pipeline.workers import ReadingTable

MAX_SUBSTITUTES = 20
"""How many clips in a row may be unusable before the data as a whole is taken to be."""


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


@dataclass(frozen=True, slots=True)
class Loaded:
    """The clip of a sample number, and those that it stands in for."""

    clip: Clip | EncodedClip
    skipped: tuple[SkippedClip, ...] = ()


class StoredClips(Dataset[Loaded | Failure], ABC):
    """Clips of a split by sample number; subclasses say which clip and which frames a number means."""

    def __init__(self, store: ShardStore, split: Split, settings: ClipSettings, workers: int) -> None:
        self.store = store
        self.split = split
        self.settings = settings
        self.reading = ReadingTable(workers)
        self.ahead = ReadAhead(store, self.upcoming)
        self._indexes: dict[int, tuple[IndexedSample, ...]] = {}

    def __getitem__(self, number: int) -> Loaded | Failure:
        try:
            self.ahead.expect(number)
            return self.load(number)
        except ValueError as error:
            return Failure(str(error))
        finally:
            self.reading.done()

    @abstractmethod
    def load(self, number: int) -> Loaded:
        """Return the clip of a sample number, ready to collate."""

    @abstractmethod
    def upcoming(self, number: int) -> Upcoming:
        """Return the shards of sample `number` and of those after it."""

    def entries(self, shards: Sequence[int]) -> tuple[ShardEntry, ...]:
        """Return the manifest's entries of shards of the split."""
        return tuple(self.split.shards[shard] for shard in shards)

    def read(self, number: int, shard: int, position: int) -> tuple[RawClip, str]:
        """Return a stored clip and its name for errors (shard and sample key)."""
        self.reading.start(number, shard, position)
        sample = self.index(shard)[position]
        path = self.store.folder / self.split.shards[shard].name
        where = f"{path} sample {sample.key}"
        try:
            members = self.store.read(self.split.shards[shard], sample)
        except OSError as error:
            raise ValueError(f"{where}: cannot be read ({error.strerror}); check the disk") from error
        with unusable(Unusable.NOT_A_CLIP, where):
            return stages.parse_sample(members, scale_policy=self.settings.scale_policy, where=where), where

    def decode(self, raw: RawClip, selection: FrameSelection, *, caption: str, seed: int, where: str) -> Clip:
        """Return the selected frames of a stored clip in the loader's resolution."""
        with unusable(Unusable.NOT_DECODABLE, where):
            return stages.decode(
                raw,
                selection,
                caption=caption,
                seed=seed,
                resolution=self.settings.resolution,
                principal_point=self.settings.principal_point,
                scale_policy=self.settings.scale_policy,
                where=where,
            )

    def index(self, shard: int) -> tuple[IndexedSample, ...]:
        """Return a shard's index, which is kept."""
        if shard not in self._indexes:
            entry = self.split.shards[shard]
            path = self.store.path(entry)
            try:
                samples = read_index(path)
            except OSError as error:
                raise ValueError(f"{path}: cannot be read ({error.strerror}); check the disk") from error
            if len(samples) != entry.samples:
                raise ValueError(
                    f"{path}: {len(samples)} samples, the manifest says {entry.samples}; copy or pack it again"
                )
            self._indexes[shard] = samples
        return self._indexes[shard]

    def last_words(self, worker: BaseProcess) -> str:
        """Say what a worker that died was reading."""
        reading = self.reading.of(worker.pid)
        if reading is None:
            return "between two clips"
        shard = self.store.folder / self.split.shards[reading.shard].name
        # A shard that was still being fetched is not fetched for the sake of its clip's name.
        clip = self.index(reading.shard)[reading.position].key if shard.is_file() else f"number {reading.position}"
        return f"on {shard} sample {clip} (worker {reading.worker}, sample number {reading.number})"


class ShuffledClips(StoredClips):
    """Training: number n is the n-th clip of the endless order, frames drawn by the sample's seed.

    Another clip, drawn by seed and number alone, takes the place of one that cannot be used.
    """

    def __init__(self, store: ShardStore, split: Split, settings: ClipSettings, workers: int, order: Order) -> None:
        super().__init__(store, split, settings, workers)
        self.order = order

    def load(self, number: int) -> Loaded:
        """Return sample number `number` of the endless order.

        Raises ValueError where a shard cannot be read at all, or its clip and all substitutes cannot be used.
        """
        skipped: list[SkippedClip] = []
        shard, position = self.order.clip(number)
        while True:
            try:
                return Loaded(self._clip(number, shard, position), tuple(skipped))
            except UnusableClip as error:
                if len(skipped) == MAX_SUBSTITUTES:
                    raise ValueError(
                        f"{MAX_SUBSTITUTES + 1} clips in a row cannot be used, the last one because: {error}"
                    ) from error
                skipped.append(
                    SkippedClip(
                        sample=number,
                        shard=self.split.shards[shard].name,
                        clip=self.index(shard)[position].key,
                        reason=str(error.reason),
                        message=str(error),
                    )
                )
            shard, position = self.order.substitute(number, len(skipped))

    def upcoming(self, number: int) -> Upcoming:
        """Return the shards of the number's shuffle window, and of the next one."""
        (until, now), (_, later) = islice(self.order.windows_from(number), 2)
        return Upcoming(until=until, now=self.entries(now), later=self.entries(later))

    def take(
        self, raw: RawClip, selection: FrameSelection, *, caption: int, seed: int, shard: int, key: str, where: str
    ) -> Clip | EncodedClip:
        """Return the selected frames of a stored clip with its caption of this number."""
        return self.decode(raw, selection, caption=raw.captions[caption], seed=seed, where=where)

    def _clip(self, number: int, shard: int, position: int) -> Clip | EncodedClip:
        raw, where = self.read(number, shard, position)
        seed = sample_seed(self.order.seed, number)
        draw = SampleRandom(seed)
        caption = draw(0, len(raw.captions) - 1)
        with unusable(Unusable.TOO_SHORT, where):
            selection = select_frames(
                available=len(raw.world_to_camera),
                frames=self.settings.frames,
                stride=self.settings.frame_stride,
                random_integer=draw,
                where=where,
            )
        key = self.index(shard)[position].key
        return self.take(raw, selection, caption=caption, seed=seed, shard=shard, key=key, where=where)


class OrderedClips(StoredClips):
    """Validation: number n is the n-th clip of the manifest, always the same frames. Nothing takes another's place."""

    def __init__(self, store: ShardStore, split: Split, settings: ClipSettings, workers: int, seed: int) -> None:
        super().__init__(store, split, settings, workers)
        self.seed = seed
        self.first_of_shard = [0, *accumulate(shard.samples for shard in split.shards)]

    def load(self, number: int) -> Loaded:
        """Return the clip at `number` in the manifest. Raises UnusableClip, naming it, where it cannot be used."""
        shard = self._shard_of(number)
        raw, where = self.read(number, shard, number - self.first_of_shard[shard])
        with unusable(Unusable.TOO_SHORT, where):
            selection = first_frames(
                available=len(raw.world_to_camera),
                frames=self.settings.frames,
                stride=self.settings.frame_stride,
                where=where,
            )
        seed = sample_seed(self.seed, number)
        return Loaded(self.decode(raw, selection, caption=raw.captions[0], seed=seed, where=where))

    def upcoming(self, number: int) -> Upcoming:
        """Return the number's shard, and the next one."""
        shard = self._shard_of(number)
        following = range(shard + 1, min(shard + 2, len(self.split.shards)))
        return Upcoming(
            until=self.first_of_shard[shard + 1], now=self.entries([shard]), later=self.entries(list(following))
        )

    def _shard_of(self, number: int) -> int:
        return bisect_right(self.first_of_shard, number) - 1
