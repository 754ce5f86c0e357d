"""How fast samples come from raw 720p videos, packed shards and cached latents: the same clips, side by side."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cami2v.batch import ClipBatch
from data_pipeline.loader import ClipLoader
from tools.benchmark_report import Report, Table
from tools.benchmark_stages import time_stages
from tools.raw_videos import Draw, RawVideos
from tools.rounds import Spread, take_turns, times_as_fast
from tools.stored_sets import DEFAULT, FORMATS, LoaderOptions, Sets

RAW = "raw videos, as published"
RAW_BYTES = "raw videos, resized before they are floats"
CACHED = "cached latents and text"
CACHED_ALL = "cached latents, text and image tokens"
TARGETS = {DEFAULT: 25.0, CACHED_ALL: 500.0}
BYTES_TARGET, WORKERS_TARGET = 1.5, 1.7
_CACHED_SAMPLES = 25
"""A cached sample takes so little that a clock needs many of them."""


def measure_loader(clips: Path, folder: Path, options: LoaderOptions) -> Report:
    """Time every way of storing the clips, and two worker processes against one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(clips, folder, options)
    finally:
        torch.set_num_threads(threads)


def _measure(clips: Path, folder: Path, options: LoaderOptions) -> Report:
    raw, sets = RawVideos(clips, options.resolution), Sets(clips, folder, options)
    shards = {name: sets.pack(name) for name in FORMATS}
    caches = {CACHED: sets.cache(shards[DEFAULT], image_tokens=False)}
    caches[CACHED_ALL] = sets.cache(shards[DEFAULT], image_tokens=True)
    loaders = {name: sets.loader(path) for name, path in shards.items()}
    loaders |= {name: sets.loader(shards[DEFAULT], cache=path) for name, path in caches.items()}
    draws = _draws(loaders[DEFAULT], (options.rounds + 1) * options.samples)
    counts = {name: options.samples * (_CACHED_SAMPLES if name in caches else 1) for name in (RAW, RAW_BYTES, *loaders)}
    variants: dict[str, Callable[[int], object]] = {
        RAW: lambda number: [raw.load(draw, resize_bytes=False) for draw in _of_round(draws, number, options)],
        RAW_BYTES: lambda number: [raw.load(draw, resize_bytes=True) for draw in _of_round(draws, number, options)],
    }
    for name, loader in loaders.items():
        variants[name] = _taker(_stream(loader), counts[name])
    took = take_turns(variants, options.rounds)
    seconds = {name: [each / counts[name] for each in values] for name, values in took.items()}
    sizes = {RAW: raw.bytes_per_clip, RAW_BYTES: raw.bytes_per_clip}
    sizes |= {name: _tar_bytes(path) / len(raw.clips) for name, path in (shards | caches).items()}
    quality = _psnr(raw, {name: loaders[name] for name in shards}, draws)
    skipped = {name: len(loader.take_skipped()) for name, loader in loaders.items()}
    numbers = {
        name: {
            "cpu_seconds_per_sample": seconds[name],
            "times_raw": [theirs / mine for theirs, mine in zip(seconds[RAW], seconds[name], strict=True)],
            "bytes_per_clip": sizes[name],
            "times_source_bytes": sizes[name] / sizes[RAW],
            "psnr_to_raw_db": quality.get(name),
            "skipped_samples": skipped.get(name, 0),
        }
        for name in seconds
    }
    workers = _worker_rates(sets, shards[DEFAULT], options)
    stages = time_stages(loaders[DEFAULT], options.rounds * options.samples)
    found = {"clips": raw.describe(), "settings": _plain(options), "variants": numbers, "workers": workers}
    tables = [_variants_table(raw, options, seconds, sizes, quality, skipped), _workers_table(workers)]
    return Report(
        name="loader",
        tables=[*tables, _stages_table(stages), _targets_table(seconds, sizes, workers)],
        numbers={**found, "stages_milliseconds": stages},
    )


def _draws(loader: ClipLoader, count: int) -> list[Draw]:
    """List which frames of which clips the loader's first samples are."""
    batches = itertools.islice(_stream(loader), count)
    return [
        Draw(batch.clip_ids[0], batch.frame_indices[0].numpy(), int(batch.frame_stride[0]))
        for batch in batches
        if isinstance(batch, ClipBatch)
    ]


def _of_round(draws: Sequence[Draw], number: int, options: LoaderOptions) -> Sequence[Draw]:
    return draws[(number + 1) * options.samples : (number + 2) * options.samples]


def _stream(loader: ClipLoader) -> Iterator[Any]:
    return loader.stream(micro_batch_size=1, rank=0, world_size=1, seed=0, start=0)


def _taker(stream: Iterator[Any], count: int) -> Callable[[int], object]:
    return lambda number: [next(stream) and None for _ in range(count)]


def _worker_rates(sets: Sets, shards: Path, options: LoaderOptions) -> dict[str, list[float]]:
    """Return samples per second of wall-clock time with one and with two worker processes, round by round."""

    def run(workers: int) -> Callable[[int], object]:
        def take(number: int) -> None:
            stream = _stream(sets.loader(shards, workers=workers))
            for _ in range(2 * workers):
                next(stream)
            start = time.perf_counter()
            for _ in range(options.worker_samples):
                next(stream)
            if number >= 0:
                rates[str(workers)].append(options.worker_samples / (time.perf_counter() - start))

        return take

    rates: dict[str, list[float]] = {"1": [], "2": []}
    before = os.getloadavg()[0]
    take_turns({"1": run(1), "2": run(2)}, max(options.rounds // 2, 1), clock=time.perf_counter)
    return {**rates, "load_before": [before]}


def _psnr(raw: RawVideos, loaders: Mapping[str, ClipLoader], draws: Sequence[Draw]) -> dict[str, float]:
    """Return the median PSNR (dB) of the first samples to those of the raw path."""
    some = draws[: min(4, len(draws))]
    truth = [raw.load(draw, resize_bytes=False).video for draw in some]
    found = {}
    for name, loader in loaders.items():
        videos = [batch.video for batch in itertools.islice(_stream(loader), len(some))]
        errors = [float((mine - true).square().mean()) for mine, true in zip(videos, truth, strict=True)]
        found[name] = float(np.median([10 * np.log10(4 / max(error, 1e-12)) for error in errors]))
    return found


def _variants_table(
    raw: RawVideos,
    options: LoaderOptions,
    seconds: Mapping[str, Sequence[float]],
    sizes: Mapping[str, float],
    quality: Mapping[str, float],
    skipped: Mapping[str, int],
) -> Table:
    rows = [
        [
            name,
            f"{1e3 * Spread.of(values).median:.1f}",
            f"{1 / Spread.of(values).median:.1f}",
            times_as_fast(seconds[RAW], values).text(1),
            f"{sizes[name] / 1024:.0f}",
            f"{sizes[name] / sizes[RAW]:.2f}",
            f"{quality[name]:.1f}" if name in quality else "",
        ]
        for name, values in seconds.items()
    ]
    said = raw.describe()
    height, width = options.resolution
    replaced = sum(skipped.values())
    notes = [
        f"{options.frames} frames of {height}x{width}, stride {options.stride[0]} to {options.stride[1]}, drawn from "
        f"{said['clips']} clips of {said['frames']} frames of {said['size']}; {options.rounds} rounds of "
        f"{options.samples} samples, one thread, CPU time; medians, in brackets the lowest and highest round.",
        *(
            [f"{replaced} samples could not be used and were replaced: the rows differ in their clips."]
            * bool(replaced)
        ),
    ]
    columns = ("storage", "ms", "samples/s/core", "times raw", "KiB/clip", "times source", "dB to raw")
    title = "Loader: one sample from"
    return Table(title=title, columns=columns, rows=rows, notes=notes)


def _workers_table(workers: Mapping[str, Sequence[float]]) -> Table:
    one, two = workers["1"], workers["2"]
    scale = Spread.of([b / a for a, b in zip(one, two, strict=True)])
    cores, load = len(os.sched_getaffinity(0)), workers["load_before"][0]
    busy = load > 0.25 * cores or cores < 3
    note = f"{cores} cores, load {load:.1f} before: other work and the main process take part of what two workers need."
    rows = [[DEFAULT, f"{Spread.of(one).median:.1f}", f"{Spread.of(two).median:.1f}", scale.text(2)]]
    columns = ("storage", "1 worker, samples/s", "2 workers, samples/s", "times one")
    return Table(title="Worker processes, wall-clock time", columns=columns, rows=rows, notes=[note] if busy else [])


def _stages_table(stages: Mapping[str, float]) -> Table:
    rows = [[name, f"{value:.2f}"] for name, value in stages.items()]
    return Table(title=f"Where the time of a sample goes: {DEFAULT}", columns=("stage", "ms of CPU"), rows=rows)


def _targets_table(
    seconds: Mapping[str, Sequence[float]], sizes: Mapping[str, float], workers: Mapping[str, Sequence[float]]
) -> Table:
    rows = []
    for name, target in TARGETS.items():
        ratio = times_as_fast(seconds[RAW], seconds[name]).median
        rows.append([f"{name}: times raw", f"{ratio:.1f}", f"at least {target:.0f}", _verdict(ratio >= target)])
    size = sizes[DEFAULT] / sizes[RAW]
    rows.append(
        [f"{DEFAULT}: times source bytes", f"{size:.2f}", f"at most {BYTES_TARGET}", _verdict(size <= BYTES_TARGET)]
    )
    scale = Spread.of([b / a for a, b in zip(workers["1"], workers["2"], strict=True)]).median
    rows.append(
        ["two workers: times one", f"{scale:.2f}", f"at least {WORKERS_TARGET}", _verdict(scale >= WORKERS_TARGET)]
    )
    return Table(title="Targets", columns=("what", "measured", "target", ""), rows=rows)


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"


def _plain(options: LoaderOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in LoaderOptions.__slots__}


def _tar_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tar"))
