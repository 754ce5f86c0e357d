"""`cami2v data encode`: the clips of a shard set, through the frozen towers of a model -> a cache for training."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from omegaconf import DictConfig

from data_pipeline.cache.encode import EncodeResult, EncodeSettings, encode, encoding_of
from data_pipeline.cache.manifest import Encoding
from data_pipeline.cache.rows import NumberFormat
from data_pipeline.loader import ClipLoader
from launch.build import build_model
from launch.compose import check_parts, entry, instantiate_part, plain, settings
from launch.encoders import ModelTowers, encoder_identities
from launch.starting_point import starting_point

logger = logging.getLogger(__name__)


def run(config: DictConfig) -> None:
    """Encode, and say how fast and how large."""
    options = settings(config.encode, EncodeSettings, "encode")
    check_parts(config)
    loader = _loader(config, options)
    name = Path(loader.store.name).name
    height, width = loader.settings.resolution
    output = Path(config.output or Path("data", "caches", f"{name}-{height}x{width}")).expanduser()
    start = starting_point(config.init_from, key="init_from")
    start.check(config)
    model = build_model(config)
    report = start.load(model)
    if report is not None:
        logger.info("%s", report.summary())
    encoders = encoder_identities(config, model)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = None if options.precision is NumberFormat.FP32 else options.precision.torch
    towers = ModelTowers(model, device=device, autocast_dtype=half)
    del model
    encoding = encoding_of(encoders, loader.settings.resolution, options)
    started = time.perf_counter()
    result = encode(
        loader.store,
        loader.manifest,
        output,
        encoding=encoding,
        settings=options,
        towers=towers,
        generator={"shards": name, "manifest_sha256": loader.manifest.input_sha256, "device": device.type},
        progress=True,
    )
    print("\n".join(_summary(result, encoding, time.perf_counter() - started)))


def _loader(config: DictConfig, options: EncodeSettings) -> ClipLoader:
    """Open the shard set with the settings that training will open it with."""
    node = {**plain(config.data, "data"), "cache": None}
    if options.splits:
        node["split"] = options.splits[0]
    loader: ClipLoader = instantiate_part(node, "data")
    return loader


def _summary(result: EncodeResult, encoding: Encoding, seconds: float) -> list[str]:
    if result.manifest is None:
        missing = f"{result.shards_missing} shards of other tasks are not finished; the last task completes the cache"
        return [f"{result.folder}: this task's shards are encoded, {missing}"]
    lines = []
    shards = [(split, shard) for split, each in result.manifest.splits.items() for shard in each]
    for split, shard in shards:
        lines += [f"{split}: left out, {why}" for why in shard.unusable.values()]
    clips = sum(len(shard.clips) for _, shard in shards)
    size = sum(shard.entry.bytes for _, shard in shards if shard.entry is not None)
    what = "latents, text and image tokens" if encoding.image_tokens else "latents and text"
    rate = f"{result.clips_encoded / seconds:.2f} clips/s" if result.clips_encoded else "already encoded"
    return [
        *lines,
        f"{clips} clips of {len(result.manifest.splits)} splits in {len(shards)} shards, {what} as "
        f"{encoding.dtype.value}, {size / max(clips, 1) / 1024:.1f} KiB per clip; {rate}",
        f"cache: {result.folder}  (train on it: cami2v train ... data.cache={result.folder})",
    ]


main = entry("data_encode")(run)

if __name__ == "__main__":
    main()
