"""Clips of a shard set as input of `cami2v sample`: an image, the clip's own cameras, and the true video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8

from cami2v.batch import ClipBatch
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.inference.clip_video import to_frames
from cami2v.inference.model_facts import Defaults
from cami2v.inference.settings import Picture, open_picture
from cami2v.trajectories.trajectory import Trajectory
from data_pipeline.loader import ClipLoader

FEW = 4

SMALLEST = 16
"""Pixels; for a loader that is only asked which clips there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmedClip:
    """A clip as a model would be shown it."""

    image: tuple[str, Picture]
    """The conditioning frame in whole grey levels, as a record carries it."""
    caption: str
    path: Trajectory
    """In the unit of the model's poses."""
    truth: UInt8[np.ndarray, "frames height width 3"]
    frame_stride: int
    frames_per_second: float


class ClipsOfShards:
    """Clips of a split, by id; the first so many of them (None: `FEW`, where there are as many), or those named.

    Raises ValueError for shards, splits and clips that are not there.
    """

    def __init__(self, shards: str, split: str, clips: int | Sequence[str] | None) -> None:
        self.shards = shards
        self.split = split
        known = list(self._loader(1, (SMALLEST, SMALLEST), 1, None).chosen((), self._source).by_id)
        clips = min(FEW, len(known)) if clips is None else clips
        if isinstance(clips, int):
            if not 1 <= clips <= len(known):
                raise ValueError(
                    f"clips={clips}: {shards} split {split} has {len(known)}; choose 1 to that, or name them"
                )
            clips = known[:clips]
        unknown = [name for name in clips if name not in known]
        if unknown or not clips:
            raise ValueError(
                f"clips: {unknown[0] if unknown else 'an empty list'} is not in {shards} split {split}, which has "
                f"{len(known)} clips (first {known[0]})"
            )
        self.names: tuple[str, ...] = tuple(dict.fromkeys(clips))

    @property
    def _source(self) -> str:
        return f"clips of {self.shards} split {self.split}"

    def read(
        self, defaults: Defaults, *, frames: int | None, resolution: tuple[int, int] | None, frame_stride: int | None,
        condition_frame: int,
    ) -> dict[str, FilmedClip]:  # fmt: skip
        """Return the clips as a model trained for `defaults` is shown them; what is not None takes their place."""
        known = {policy.value: policy for policy in ScalePolicy}
        loader = self._loader(
            frames or defaults.frames,
            resolution or (defaults.height, defaults.width),
            frame_stride or defaults.frame_stride,
            known.get(defaults.scale_policy),
        )
        listed = loader.chosen((), self._source)
        chosen = loader.chosen([listed.describe(name, None, 0) for name in self.names], self._source)
        return {
            batch.clip_ids[0]: _filmed(batch, condition_frame)
            for batch in loader.chosen_batches(chosen, set(self.names))
        }

    def _loader(
        self, frames: int, resolution: tuple[int, int], frame_stride: int, scale_policy: ScalePolicy | None
    ) -> ClipLoader:
        return ClipLoader(
            shards=self.shards, split=self.split, frames=frames, resolution=resolution, frame_stride=frame_stride,
            num_workers=0, scale_policy=scale_policy, shuffle_window_shards=1, shared_shards="allow",
        )  # fmt: skip


def _filmed(batch: ClipBatch, condition_frame: int) -> FilmedClip:
    cameras, truth = batch.cameras, to_frames(batch.video[0])
    poses = cameras.world_to_camera[0].clone()
    # The conditioning frame's scale applies to all frames, as in `scaled_relative_poses`.
    poses[:, :, 3] *= cameras.translation_scale[0, condition_frame]
    size = torch.tensor([cameras.width, cameras.height, cameras.width, cameras.height], dtype=torch.float64)
    _, picture = open_picture(truth[condition_frame])
    return FilmedClip(
        image=(f"clip {batch.clip_ids[0]}", picture),
        caption=batch.captions[0],
        path=Trajectory(world_to_camera=poses, intrinsics_normalized=cameras.intrinsics_pixels[0] / size),
        truth=truth,
        frame_stride=int(batch.frame_stride[0]),
        frames_per_second=float(batch.frames_per_second[0]),
    )
