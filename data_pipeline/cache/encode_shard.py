"""Encode one shard: frames decoded in small pieces by worker processes, encoded in order, one clip held at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.cache.manifest import BLANK_IMAGE, EMPTY_CAPTION, Encoding, clip_content
from data_pipeline.cache.rows import Rows, checksums, to_npy
from data_pipeline.dataset import ClipSettings, OrderedClips, StoredClips
from data_pipeline.index import IndexedSample, read_members
from data_pipeline.manifest import ShardEntry, Split
from data_pipeline.sampling import FrameSelection
from data_pipeline.shard_store import ShardStore
from data_pipeline.shard_writer import Sample
from data_pipeline.unusable import UnusableClip
from data_pipeline.workers import watched


@runtime_checkable
class Towers(Protocol):
    """The frozen encoders, wherever they compute; results are on the CPU."""

    latent_channels: int

    def moments(
        self, frames: Float32[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames parameters latent_height latent_width"]:
        """Return what the first stage draws latents from."""

    def text_tokens(self, captions: Sequence[str]) -> Float[Tensor, "captions tokens context"]:
        """Encode captions."""

    def image_tokens(self, frames: Float32[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames tokens channels"]:
        """Encode frames for the image condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clip:
    """A stored clip as far as it can be known without its video."""

    key: str
    position: int
    """In the shard."""
    frames: int
    captions: tuple[str, ...]
    content: str


@dataclass(frozen=True, slots=True)
class _Broken:
    """Why frames could not be decoded, on its way out of a worker process, which would bury it in a traceback."""

    message: str
    unusable: bool
    """The clip's own fault, not that of the disk or the network."""


class _Pieces(Dataset[Tensor | _Broken]):
    """Consecutive frames of clips, at the resolution of the cache."""

    def __init__(self, stored: StoredClips, pieces: Sequence[tuple[_Clip, range]]) -> None:
        self.stored = stored
        self.pieces = pieces

    def __len__(self) -> int:
        return len(self.pieces)

    def __getitem__(self, number: int) -> Tensor | _Broken:
        clip, frames = self.pieces[number]
        try:
            raw, where = self.stored.read(number, 0, clip.position)
            selection = FrameSelection(indices=np.arange(frames.start, frames.stop), stride=1)
            return self.stored.decode(raw, selection, caption="", seed=0, where=where).video
        except ValueError as error:
            return _Broken(str(error), isinstance(error, UnusableClip))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardEncoder:
    """Encodes shards of a set."""

    store: ShardStore
    encoding: Encoding
    towers: Towers
    num_workers: int

    def samples(
        self, entry: ShardEntry, bad: list[tuple[str, BadClip]], clip_done: Callable[[], object]
    ) -> Iterator[Sample]:
        """Yield the encoded clips of a shard in order; those that cannot be decoded go to `bad`."""
        stored, path = self._stored(entry), self.store.path(entry)
        clips: list[_Clip] = []
        for position, sample in enumerate(stored.index(0)):
            try:
                clips.append(_describe(position, sample, read_members(path, sample, ("json",))["json"]))
            except (UnusableClip, KeyError, TypeError, ValueError) as error:
                bad.append((sample.key, _bad(f"{path} sample {sample.key}: not a clip ({error})")))
                clip_done()
        for clip, broken, arrays in self._encoded(stored, clips):
            if broken is None:
                yield clip.key, clip.frames, self._members(clip, entry, arrays)
            else:
                bad.append((clip.key, _bad(broken.message)))
            clip_done()

    def blanks(self) -> tuple[dict[str, tuple[int, ...]], int, dict[str, Rows]]:
        """Return the shape of a row of every array, the mean's channels, and the blank conditions by file name."""
        blank = torch.zeros(1, 3, *self.encoding.resolution)
        empty = self.encoding.dtype.store(self.towers.text_tokens([""]), "the empty caption")[0]
        shapes = {"moments": tuple(self.towers.moments(blank).shape[1:]), "text": empty.shape}
        files = {EMPTY_CAPTION: empty}
        if self.encoding.image_tokens:
            files[BLANK_IMAGE] = self.encoding.dtype.store(self.towers.image_tokens(blank), "the blank image")[0]
            shapes["image"] = files[BLANK_IMAGE].shape
        return shapes, self.towers.latent_channels, files

    def _stored(self, entry: ShardEntry) -> StoredClips:
        settings = ClipSettings(
            frames=1,
            resolution=self.encoding.resolution,
            frame_stride=1,
            scale_policy=ScalePolicy.RELATIVE,
            principal_point="cropped",
        )
        split = Split(samples=entry.samples, shards=(entry,), sources=())
        return OrderedClips(self.store, split, settings, self.num_workers, seed=0)

    def _encoded(
        self, stored: StoredClips, clips: Sequence[_Clip]
    ) -> Iterator[tuple[_Clip, _Broken | None, dict[str, Rows]]]:
        step = self.encoding.frames_at_once
        pieces = [
            (clip, range(start, min(start + step, clip.frames)))
            for clip in clips
            for start in range(0, clip.frames, step)
        ]
        loader = DataLoader(
            _Pieces(stored, pieces),
            batch_size=None,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        remedy = "; lower encode.num_workers (memory?); the same command continues"
        frames_of_pieces = watched(loader, lambda worker: "while it decoded videos", remedy)
        decoded = zip(pieces, frames_of_pieces, strict=True)
        for clip, group in itertools.groupby(decoded, key=lambda each: each[0][0]):
            broken: _Broken | None = None
            parts: dict[str, list[Rows]] = {"moments": [], "image": []}
            for _, frames in group:
                if isinstance(frames, _Broken):
                    if not frames.unusable:
                        raise ValueError(frames.message)
                    broken = frames
                elif broken is None:
                    self._encode_frames(clip, frames, parts)
            yield clip, broken, {name: np.concatenate(rows) for name, rows in parts.items() if rows}

    def _encode_frames(self, clip: _Clip, frames: Tensor, parts: dict[str, list[Rows]]) -> None:
        store = self.encoding.dtype.store
        parts["moments"].append(store(self.towers.moments(frames), f"{clip.key}: moments"))
        if self.encoding.image_tokens:
            parts["image"].append(store(self.towers.image_tokens(frames), f"{clip.key}: image tokens"))

    def _members(self, clip: _Clip, entry: ShardEntry, arrays: dict[str, Rows]) -> dict[str, bytes]:
        text = self.encoding.dtype.store(self.towers.text_tokens(clip.captions), f"{clip.key}: text tokens")
        ordered = {"moments": arrays["moments"], "text": text}
        if "image" in arrays:
            ordered["image"] = arrays["image"]
        about = {"clip_id": clip.key, "content": clip.content, "captions": clip.captions, "source": entry.name}
        return {
            **{f"{name}.npy": to_npy(rows) for name, rows in ordered.items()},
            "sums.npy": to_npy(np.concatenate([checksums(rows) for rows in ordered.values()])),
            "json": (json.dumps(about) + "\n").encode(),
        }


def _describe(position: int, sample: IndexedSample, data: bytes) -> _Clip:
    about = json.loads(data)
    frames = int(about["packed"]["frames"])
    if frames < 1:
        raise ValueError("has no frames")
    return _Clip(
        key=sample.key,
        position=position,
        frames=frames,
        captions=tuple(about["captions"]),
        content=clip_content(sample.members["mp4"].sha256, about),
    )


def _bad(message: str) -> BadClip:
    return BadClip(Reason.VIDEO_UNREADABLE, message)
