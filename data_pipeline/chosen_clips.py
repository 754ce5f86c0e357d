"""Clips and frames that an evaluation manifest names, from a split of a shard set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from cami2v.batch import Cameras, RawClip
from data_pipeline import stages
from data_pipeline.dataset import ClipSettings, Loaded, StoredClips
from data_pipeline.evaluation_manifest import ManifestClip, caption_sha256, poses_sha256
from data_pipeline.manifest import Split
from data_pipeline.order import sample_seed
from data_pipeline.read_ahead import Upcoming
from data_pipeline.sampling import FrameSelection, first_frames
from data_pipeline.shard_store import ShardStore
from data_pipeline.unusable import Unusable, unusable

WITHOUT_VIDEO = ("cameras.npz", "json")


class ChosenClips(StoredClips):
    """Number n is the n-th of `clips`, in the order of the shards, with the frames, seed and caption it names.

    What the split no longer has as the manifest says raises ValueError naming `source` and clip.
    """

    def __init__(
        self,
        store: ShardStore,
        split: Split,
        settings: ClipSettings,
        workers: int,
        clips: Sequence[ManifestClip],
        source: str,
    ) -> None:
        super().__init__(store, split, settings, workers)
        self.source = source
        self.by_id = self._places()
        """Shard and position of every clip of the split, in manifest order."""
        missing = sorted(clip.clip_id for clip in clips if clip.clip_id not in self.by_id)
        if missing:
            raise ValueError(
                f"{source}: {len(missing)} of its clips are not in {store.name} (first {missing[0]}); choose the "
                "shards and the split it was made from"
            )
        chosen = sorted(((self.by_id[clip.clip_id], clip) for clip in clips), key=lambda pair: pair[0])
        self.places, self.clips = [place for place, _ in chosen], [clip for _, clip in chosen]

    def load(self, number: int) -> Loaded:
        """Return the clip with its frames decoded."""
        clip = self.clips[number]
        raw, where = self.read(number, *self.places[number])
        caption, selection = self._check(clip, raw), _selection(clip)
        assert clip.seed is not None, "clips that are read have a seed"
        return Loaded(self.decode(raw, selection, caption=caption, seed=clip.seed, where=where))

    def cameras(self, clip: ManifestClip) -> Cameras:
        """Return the cameras of one of the clips without decoding its video."""
        raw, where = self._without_video(*self.places[self.clips.index(clip)])
        self._check(clip, raw)
        return stages.framed_cameras(
            raw,
            _selection(clip),
            resolution=self.settings.resolution,
            principal_point=self.settings.principal_point,
            scale_policy=self.settings.scale_policy,
            where=where,
        )

    def check(self) -> None:
        """Raise ValueError unless every clip is as the manifest says; no video is read."""
        for clip, place in zip(self.clips, self.places, strict=True):
            self._check(clip, self._without_video(*place)[0])

    def describe_first(self, count: int, seed: int) -> Iterator[ManifestClip]:
        """Describe the first `count` clips of the split as `OrderedClips` reads them: first frames, first caption."""
        for number, clip_id in enumerate(islice(self.by_id, count)):
            yield self.describe(clip_id, None, sample_seed(seed, number))

    def describe(self, clip_id: str, caption: str | None, seed: int | None) -> ManifestClip:
        """Describe the first frames of a clip of the split, with a caption of its own unless one is given."""
        raw, where = self._without_video(*self.by_id[clip_id])
        with unusable(Unusable.TOO_SHORT, where):
            selection = first_frames(
                available=len(raw.world_to_camera),
                frames=self.settings.frames,
                stride=self.settings.frame_stride,
                where=where,
            )
        return ManifestClip(
            clip_id=raw.clip_id,
            frame_indices=tuple(selection.indices.tolist()),
            frame_stride=selection.stride,
            seed=seed,
            caption_sha256=caption_sha256(raw.captions[0] if caption is None else caption),
            poses_sha256=poses_sha256(raw.world_to_camera[selection.indices]),
        )

    def upcoming(self, number: int) -> Upcoming:
        """Return the number's shard, and the next one."""
        shard = self.places[number][0]
        until = next((n for n in range(number, len(self.places)) if self.places[n][0] != shard), len(self.places))
        following = [self.places[until][0]] if until < len(self.places) else []
        return Upcoming(until=until, now=self.entries([shard]), later=self.entries(following))

    def _places(self) -> dict[str, tuple[int, int]]:
        return {
            sample.key: (shard, position)
            for shard in range(len(self.split.shards))
            for position, sample in enumerate(self.index(shard))
        }

    def _without_video(self, shard: int, position: int) -> tuple[RawClip, str]:
        entry, sample = self.split.shards[shard], self.index(shard)[position]
        where = f"{self.store.folder / entry.name} sample {sample.key}"
        members = {**self.store.read(entry, sample, WITHOUT_VIDEO), "mp4": b""}
        return stages.parse_sample(members, scale_policy=self.settings.scale_policy, where=where), where

    def _check(self, clip: ManifestClip, raw: RawClip) -> str:
        """Return the clip's caption. Raises ValueError where the stored clip is not the manifest's."""
        what = f"{self.source}: clip {clip.clip_id}"
        frames = len(raw.world_to_camera)
        if max(clip.frame_indices) >= frames:
            raise ValueError(
                f"{what}: frame {max(clip.frame_indices)} is asked for, {self.store.name} has {frames} frames"
            )
        if clip.poses_sha256 not in (None, poses_sha256(raw.world_to_camera[list(clip.frame_indices)])):
            raise ValueError(
                f"{what}: the poses of its frames in {self.store.name} are not the manifest's; evaluate the data it "
                "was made from, or make a manifest of its own by leaving evaluation.manifest out"
            )
        if clip.caption_sha256 is None:
            return raw.captions[0]
        caption = next((each for each in raw.captions if caption_sha256(each) == clip.caption_sha256), None)
        if caption is None:
            raise ValueError(
                f"{what}: none of its {len(raw.captions)} captions in {self.store.name} is the manifest's; evaluate "
                "the data it was made from, or make a manifest of its own by leaving evaluation.manifest out"
            )
        return caption


def _selection(clip: ManifestClip) -> FrameSelection:
    return FrameSelection(indices=np.array(clip.frame_indices, dtype=np.int64), stride=clip.frame_stride)
