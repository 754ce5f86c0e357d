"""The same clips as shard sets in several formats, and as caches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data_pipeline.cache.encode import EncodeSettings, encode
from data_pipeline.cache.manifest import Encoding
from data_pipeline.cache.rows import NumberFormat
from data_pipeline.loader import ClipLoader
from data_pipeline.manifest import read_manifest
from data_pipeline.pack import PackSettings, pack
from launch.compose import compose_config, instantiate_part, quote, settings

DEFAULT = "packed, the default"
FORMATS: Mapping[str, Sequence[str]] = {
    DEFAULT: (),
    "packed, key frame every 8, no B-frames": ("gop=8", "b_frames=0"),
    "packed, key frames only": ("gop=1", "b_frames=0"),
    "packed, JPEG pictures": ("codec=mjpeg",),
    "packed at short side 360": ("short_side=360",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What is measured."""

    frames: int
    resolution: tuple[int, int]
    stride: tuple[int, int]
    rounds: int
    samples: int
    """Per round and variant."""
    worker_samples: int
    """Per timing of worker processes."""


class Sets:
    """The same clips as shard sets and caches, in one folder; those that are there are used again."""

    def __init__(self, clips: Path, folder: Path, options: LoaderOptions) -> None:
        self.clips = clips
        self.folder = folder
        self.options = options

    def pack(self, name: str) -> Path:
        """Return the shard set in a format of `FORMATS`."""
        output = self.folder / ("-".join(FORMATS[name]).replace("=", "") or "default")
        overrides = [f"pack.frame_format.{each}" for each in FORMATS[name]]
        fixed = ["pack.splits={train:1.0,validation:0.0,test:0.0}", "pack.min_shards=2", "pack.overwrite=true"]
        reading = ["pack.reading.each_clip_is_a_source=true", "pack.default_caption='a video'"]
        config = compose_config("pack", [*overrides, *fixed, *reading, f"pack.min_frames={self.options.frames}"])
        pack(self.clips, output, settings(config.pack, PackSettings, "pack"), generator={}, progress=False)
        return output

    def cache(self, shards: Path, *, image_tokens: bool) -> Path:
        """Return a cache with the sizes of the published towers; what is in it does not change what reading costs."""
        output = self.folder / ("cache-image" if image_tokens else "cache")
        loader = self.loader(shards)
        towers = {"first_stage": "sizes", "text": "sizes"} | ({"image": "sizes"} if image_tokens else {})
        encode(
            loader.store,
            loader.manifest,
            output,
            encoding=Encoding(
                encoders=towers,
                resolution=self.options.resolution,
                dtype=NumberFormat.FP16,
                precision="fp32",
                frames_at_once=16,
            ),
            settings=EncodeSettings(
                splits=None,
                image_tokens=image_tokens,
                dtype=NumberFormat.FP16,
                precision=NumberFormat.FP32,
                frames_at_once=16,
                num_workers=0,
                overwrite=True,
                task=None,
                tasks=1,
            ),
            towers=PublishedSizes(),
            generator={},
            progress=False,
        )
        return output

    def loader(self, shards: Path, *, workers: int = 0, cache: Path | None = None) -> ClipLoader:
        """Open a set as training does."""
        height, width = self.options.resolution
        splits = read_manifest(shards).splits
        overrides = [
            f"data.shards={quote(str(shards))}",
            f"data.split={max(splits, key=lambda name: splits[name].samples)}",
            f"data.frames={self.options.frames}",
            f"data.resolution=[{height},{width}]",
            f"data.frame_stride={list(self.options.stride)}",
            f"data.num_workers={workers}",
            "data.shared_shards=allow",
            *([f"+data.cache={quote(str(cache))}"] if cache else []),
        ]
        loader: ClipLoader = instantiate_part(compose_config("train", overrides).data, "data")
        return loader


class PublishedSizes:
    """Stands in for DynamiCrafter's frozen towers: arrays of their sizes, without their work."""

    latent_channels = 4

    def moments(self, frames: torch.Tensor) -> torch.Tensor:
        """Return eight channels at an eighth of the size."""
        return torch.nn.functional.avg_pool2d(frames, 8)[:, [0, 1, 2, 0, 1, 2, 0, 1]]

    def text_tokens(self, captions: Sequence[str]) -> torch.Tensor:
        """Return OpenCLIP ViT-H's 77 tokens of width 1024."""
        return torch.ones(len(captions), 77, 1024)

    def image_tokens(self, frames: torch.Tensor) -> torch.Tensor:
        """Return OpenCLIP ViT-H's 257 tokens of width 1280."""
        return torch.ones(len(frames), 257, 1280)
