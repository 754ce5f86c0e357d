"""Frozen towers that are simple sums, and caches made with them; as a program, encodes a set (to be killed)."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from data_pipeline.cache.encode import EncodeResult, EncodeSettings, encode, encoding_of
from data_pipeline.cache.rows import NumberFormat
from data_pipeline.manifest import read_manifest
from data_pipeline.shard_store import LocalShards

RESOLUTION = (24, 32)
IDENTITIES = {"first_stage": "f" * 32, "text": "t" * 32, "image": "i" * 32}
SETTINGS = EncodeSettings(
    splits=None,
    image_tokens=True,
    dtype=NumberFormat.FP32,
    precision=NumberFormat.FP32,
    frames_at_once=7,
    num_workers=0,
    overwrite=False,
    task=None,
    tasks=1,
)


class ToyTowers:
    """Averages of 8x8 pixels with their negatives, letters of the caption, columns of the frame."""

    latent_channels = 3

    def __init__(self, pause_seconds: float = 0.0) -> None:
        self.pause_seconds = pause_seconds
        self.largest = 0
        self.frames = 0

    def moments(self, frames: Tensor) -> Tensor:
        time.sleep(self.pause_seconds)
        self.largest = max(self.largest, len(frames))
        self.frames += len(frames)
        means = functional.avg_pool2d(frames, 8)
        return torch.cat([means, -means], dim=1)

    def text_tokens(self, captions: Sequence[str]) -> Tensor:
        digests = [hashlib.sha256(caption.encode()).digest() for caption in captions]
        return torch.tensor([[list(digest[:4]), list(digest[4:8])] for digest in digests], dtype=torch.float32) / 255

    def image_tokens(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=2).transpose(1, 2)[:, :5]


def encode_toy(shards: Path, output: Path, towers: ToyTowers | None = None, **changes: Any) -> EncodeResult:
    settings = replace(SETTINGS, **changes)
    identities, resolution = changes.get("identities", IDENTITIES), RESOLUTION
    return encode(
        LocalShards(shards, str(shards)),
        read_manifest(shards),
        output,
        encoding=encoding_of(identities, resolution, settings),
        settings=settings,
        towers=towers or ToyTowers(),
        generator={},
        progress=False,
    )


if __name__ == "__main__":
    print("go", flush=True)
    encode_toy(Path(sys.argv[1]), Path(sys.argv[2]), ToyTowers(pause_seconds=0.1))
