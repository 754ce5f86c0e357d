"""Read a folder of posed videos for validation: with the readers that `cami2v pack` uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cami2v.video import Frame
from data_pipeline.bad_clips import BadClip
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.realestate10k.inspect import inspect_clip
from data_pipeline.validate.clip import ClipOptions, ClipResult, ReadClip, StoredCameras, judge, unreadable
from data_pipeline.validate.findings import Check, Observation, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class RawClipJob:
    """One clip to judge."""

    clip: PosedClip
    compare: bool


def judge_raw_clip(job: RawClipJob, *, options: ClipOptions) -> ClipResult:
    """Inspect one clip as packing would, then judge it; what packing refuses is the clip's only finding."""
    place = Place(shard=Path(job.clip.where).name, clip=job.clip.clip_id, split=job.clip.split)
    try:
        clip = RawClip(place, job.clip)
    except BadClip as error:
        return unreadable(place, Observation(Check(error.reason.value), str(error)))
    return judge(clip, options, job.compare)


class RawClip(ReadClip):
    """A clip of a raw folder; raises BadClip where it cannot be packed."""

    def __init__(self, place: Place, clip: PosedClip) -> None:
        inspected = inspect_clip(clip, min_frames=1, default_caption="")
        track = clip.track()
        frames = len(track.timestamps_microseconds)
        scale = clip.metric_scale
        self.place = place
        self.source_id = track.source_id
        self.captions = inspected.captions
        self.cameras = StoredCameras(
            world_to_camera=track.world_to_camera,
            intrinsics_normalized=track.intrinsics_normalized,
            timestamps_microseconds=track.timestamps_microseconds,
            metric_scale=None if scale is None else np.broadcast_to(np.asarray(scale, np.float64), (frames,)),
        )
        self.offsets_microseconds = inspected.offsets_microseconds
        self.video = inspected.frame_source.info()
        self.frames_per_second = inspected.frames_per_second
        self.cut = not clip.matched_by_time
        self.stored_pixel_aspect = None
        numbers = inspected.frame_indices
        self.content = f"{inspected.video_sha256} {numbers[0]} {numbers[-1]} {frames}"
        self._source = inspected.frame_source
        self._numbers = numbers

    def stored_claims(self) -> Iterator[Observation]:
        """Nothing is stored beside the video that inspection has not compared."""
        return iter(())

    def frames(self, indices: Sequence[int]) -> Iterator[Frame]:
        """Decode the frames that belong to these cameras."""
        return self._source.frames(self._numbers[list(indices)].tolist())
