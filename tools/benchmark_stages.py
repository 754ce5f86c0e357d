"""Where the loader's time for one sample goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from cami2v.geometry.framing import framing_for
from cami2v.video import read_frames
from data_pipeline.dataset import ShuffledClips
from data_pipeline.loader import ClipLoader
from data_pipeline.order import Order, sample_seed
from data_pipeline.sampling import SampleRandom, select_frames
from data_pipeline.stages import collate, frame_pixels, parse_sample


def time_stages(loader: ClipLoader, samples: int) -> dict[str, float]:
    """Return milliseconds of CPU per sample by stage, over the loader's first samples; the last two include others."""
    layout = tuple(shard.samples for shard in loader.split.shards)
    order = Order(samples_per_shard=layout, shuffle_window_shards=loader.shuffle_window_shards, seed=0)
    clips = ShuffledClips(loader.store, loader.split, loader.settings, 0, order)
    seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        start = time.process_time()
        yield
        seconds[stage] += time.process_time() - start

    for number in range(samples):
        shard, position = order.clip(number)
        entry, sample = clips.split.shards[shard], clips.index(shard)[position]
        with timed("read the bytes and check their sha256"):
            members = clips.store.read(entry, sample)
        with timed("parse cameras and json"):
            raw = parse_sample(members, scale_policy=loader.settings.scale_policy, where=sample.key)
        selection = select_frames(
            available=len(raw.world_to_camera),
            frames=loader.settings.frames,
            stride=loader.settings.frame_stride,
            random_integer=SampleRandom(sample_seed(0, number)),
            where=sample.key,
        )
        with timed("decode the frames to RGB"):
            pixels = read_frames(raw.video, selection.indices.tolist())
        framing = framing_for(raw.height, raw.width, loader.settings.resolution, raw.pixel_aspect)
        with timed("crop, floats in [-1, 1]" if framing.resized == pixels.shape[1:3] else "floats, resize, crop"):
            frame_pixels(pixels, framing)
        with timed("all of that and the clip's cameras, as the loader does it"):
            clip = clips.load(number).clip
        with timed("collate"):
            collate([clip])  # type: ignore[list-item]  # without a cache, clips come decoded
    return {stage: 1e3 * total / samples for stage, total in seconds.items()}
