"""Training clips from a cache: the same clips, frames, captions and seeds as from the videos, already encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor

from cami2v.batch import ConditionPixels, ConditionTokens, EncodedClip, EncodedClipBatch, RawClip
from cami2v.geometry.framing import framing_for
from data_pipeline import stages
from data_pipeline.cache.read import ClipCache
from data_pipeline.dataset import ClipSettings, ShuffledClips
from data_pipeline.index import read_members
from data_pipeline.manifest import Split
from data_pipeline.order import Order
from data_pipeline.sampling import FrameSelection
from data_pipeline.shard_store import ShardStore
from data_pipeline.unusable import Unusable, unusable

ConditionFrameOf = Callable[[int, int], int]
"""Gives the conditioning frame of the sample with a seed and a number of frames."""


def first_frame(seed: int, frames: int) -> int:
    """Condition every sample on its first frame."""
    return 0


class EncodedClips(ShuffledClips):
    """`ShuffledClips` from a cache. Cameras come from the shards; of the video at most the conditioning frame does."""

    def __init__(
        self,
        store: ShardStore,
        split: Split,
        settings: ClipSettings,
        workers: int,
        order: Order,
        *,
        cache: ClipCache,
        condition_frame: ConditionFrameOf,
    ) -> None:
        super().__init__(store, split, settings, workers, order)
        self.cache = cache
        self.condition_frame = condition_frame

    def read(self, number: int, shard: int, position: int) -> tuple[RawClip, str]:
        """Return a stored clip, without its video where no frame of it is needed."""
        if not self.cache.image_tokens:
            return super().read(number, shard, position)
        self.reading.start(number, shard, position)
        sample = self.index(shard)[position]
        path = self.store.path(self.split.shards[shard])
        where = f"{path} sample {sample.key}"
        try:
            members = read_members(path, sample, ("cameras.npz", "json"))
        except OSError as error:
            raise ValueError(f"{where}: cannot be read ({error.strerror}); check the disk") from error
        with unusable(Unusable.NOT_A_CLIP, where):
            policy = self.settings.scale_policy
            return stages.parse_sample({**members, "mp4": b""}, scale_policy=policy, where=where), where

    def take(
        self, raw: RawClip, selection: FrameSelection, *, caption: int, seed: int, shard: int, key: str, where: str
    ) -> EncodedClip:
        """Return the selected frames from the cache."""
        frame = self.condition_frame(seed, len(selection.indices))
        indices = selection.indices.tolist()
        wanted = {"moments": indices, "text": [caption]}
        if self.cache.image_tokens:
            wanted["image"] = [indices[frame]]
        rows = self.cache.read(shard, key, wanted, frames=len(raw.world_to_camera), where=where)
        cameras = stages.select_cameras(raw, selection, scale_policy=self.settings.scale_policy, where=where)
        framing = framing_for(raw.height, raw.width, self.settings.resolution, raw.pixel_aspect)
        return EncodedClip(
            clip_id=raw.clip_id,
            caption=raw.captions[caption],
            seed=seed,
            moments=rows["moments"],
            text_tokens=rows["text"][0],
            blank_text_tokens=self.cache.empty_caption,
            condition_frame=frame,
            condition_image=self._condition_image(raw, selection, rows.get("image"), frame, where),
            cameras=stages.frame_cameras(cameras, framing, self.settings.principal_point),
            frame_indices=torch.from_numpy(selection.indices),
            frame_stride=selection.stride,
            frames_per_second=raw.frames_per_second / selection.stride,
        )

    def _condition_image(
        self, raw: RawClip, selection: FrameSelection, tokens: Tensor | None, frame: int, where: str
    ) -> ConditionPixels | ConditionTokens:
        if tokens is not None:
            assert self.cache.blank_image is not None, "stored with the tokens"
            return ConditionTokens(tokens=tokens[0], blank=self.cache.blank_image)
        one = FrameSelection(indices=selection.indices[frame : frame + 1], stride=selection.stride)
        clip = self.decode(raw, one, caption="", seed=0, where=where)
        return ConditionPixels(images=clip.video[0])


def collate_encoded(clips: Sequence[EncodedClip]) -> EncodedClipBatch:
    """Stack encoded clips of equal length and size from one cache."""
    moments = torch.stack([clip.moments for clip in clips])
    return EncodedClipBatch(
        clip_ids=tuple(clip.clip_id for clip in clips),
        captions=tuple(clip.caption for clip in clips),
        seeds=torch.tensor([clip.seed for clip in clips], dtype=torch.int64),
        moments=rearrange(moments, "batch frames parameters h w -> batch parameters frames h w"),
        text_tokens=torch.stack([clip.text_tokens for clip in clips]),
        blank_text_tokens=clips[0].blank_text_tokens,
        condition_frame=torch.tensor([clip.condition_frame for clip in clips], dtype=torch.int64),
        condition_image=_stack_images([clip.condition_image for clip in clips]),
        cameras=stages.stack_cameras([clip.cameras for clip in clips]),
        frame_indices=torch.stack([clip.frame_indices for clip in clips]),
        frame_stride=torch.tensor([clip.frame_stride for clip in clips], dtype=torch.int64),
        frames_per_second=torch.tensor([clip.frames_per_second for clip in clips], dtype=torch.float32),
    )


def _stack_images(images: Sequence[ConditionPixels | ConditionTokens]) -> ConditionPixels | ConditionTokens:
    pixels = [image.images for image in images if isinstance(image, ConditionPixels)]
    if pixels:
        return ConditionPixels(images=torch.stack(pixels))
    tokens = [image for image in images if isinstance(image, ConditionTokens)]
    return ConditionTokens(tokens=torch.stack([each.tokens for each in tokens]), blank=tokens[0].blank)
