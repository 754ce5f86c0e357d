"""Encode the clips of a shard set into sibling shards: a shard of the cache for each shard of the set."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipeline.array_tasks import share_of
from data_pipeline.bad_clips import BadClip
from data_pipeline.cache.encode_shard import ShardEncoder, Towers
from data_pipeline.cache.manifest import (
    FRAMING,
    VERSION,
    CacheManifest,
    EncodedShard,
    Encoding,
    read_cache_manifest,
    write_cache_manifest,
)
from data_pipeline.cache.rows import NumberFormat, to_npy
from data_pipeline.index import read_index, read_members
from data_pipeline.manifest import FILE_NAME, Manifest, ShardEntry
from data_pipeline.pack import tool_version
from data_pipeline.pack_shards import damaged
from data_pipeline.parallel import progress_bar, workers
from data_pipeline.partial_set import FinishedShard, PartialSet, partial_set
from data_pipeline.shard_store import ShardStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeSettings:
    """How a shard set is encoded."""

    splits: Sequence[str] | None
    """None: all."""
    image_tokens: bool
    """Store the image encoder's tokens of every frame."""
    dtype: NumberFormat
    precision: NumberFormat
    """Of the towers' arithmetic; below fp32, under autocast."""
    frames_at_once: int
    num_workers: int
    """Processes that decode; 0: this one."""
    overwrite: bool
    task: int | None
    tasks: int | None
    """Which share of the shards this run encodes; None: what Slurm's job array says, all of them outside of one."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.frames_at_once < 1:
            raise ValueError(f"encode.frames_at_once={self.frames_at_once}: must be at least 1")
        if self.num_workers < 0:
            raise ValueError(f"encode.num_workers={self.num_workers}: must be 0 (decode in the main process) or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeResult:
    """What `encode` did."""

    folder: Path
    manifest: CacheManifest | None
    """None where other tasks have not finished their shards."""
    clips_encoded: int
    """By this run."""
    shards_missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    split: str
    entry: ShardEntry


def encode(
    store: ShardStore,
    manifest: Manifest,
    output: Path,
    *,
    encoding: Encoding,
    settings: EncodeSettings,
    towers: Towers,
    generator: Mapping[str, Any],
    progress: bool,
) -> EncodeResult:
    """Encode a shard set into a cache at `output`, which appears complete or not at all.

    What a killed run finished is kept beside it and continued; an equal cache that is already there is kept. A clip
    that cannot be decoded is left out and named. Raises ValueError for an `output` that holds something else (unless
    overwrite), and where no clip at all can be encoded.
    """
    share = share_of(settings.task, settings.tasks, settings="encode")
    splits = list(manifest.splits) if settings.splits is None else list(settings.splits)
    jobs = [_Job(split=name, entry=e) for name in splits for e in manifest.split(name, store.name).shards]
    digest = _digest(jobs, encoding)
    _check_output(output)
    with partial_set(output, "encode") as partial:
        existing = _existing(output, digest, settings.overwrite)
        if existing is not None:
            partial.complete = digest
            return EncodeResult(folder=output, manifest=existing, clips_encoded=0, shards_missing=0)
        partial.adopt(digest, discard=settings.overwrite)
        encoder = ShardEncoder(store=store, encoding=encoding, towers=towers, num_workers=settings.num_workers)
        encoded = _encode_shards(partial, share.of(jobs), encoder, progress=progress)
        with partial.assembling():
            existing = _existing(output, digest, settings.overwrite)
            if existing is None and (missing := partial.missing([job.entry.name for job in jobs])):
                return EncodeResult(folder=output, manifest=None, clips_encoded=encoded, shards_missing=len(missing))
            if existing is None:
                rest = [job for job in jobs if job not in share.of(jobs)]  # perhaps damaged since an earlier run
                encoded += _encode_shards(partial, rest, encoder, progress=progress)
                existing = _assemble(partial, jobs, encoding, encoder, digest, generator)
                partial.appear()
            partial.complete = digest
    return EncodeResult(folder=output, manifest=existing, clips_encoded=encoded, shards_missing=0)


def _encode_shards(partial: PartialSet, jobs: Sequence[_Job], encoder: ShardEncoder, *, progress: bool) -> int:
    """Encode the shards that are not finished or damaged; one that another process is at is waited for, at the end."""
    with workers(1) as run:
        damaged(partial, [job.entry.name for job in jobs], run)
    todo = [job for job in jobs if partial.finished(job.entry.name) is None]
    encoded = 0
    total = sum(job.entry.samples for job in todo)
    with progress_bar(None, what="encode", unit="clip", total=total, show=progress) as bar:
        busy = [job for job in todo if not _encode_shard(partial, job, encoder, bar, wait=False)]
        if busy:
            logger.warning("%s: waiting for another run that is writing %d of the shards", partial.folder, len(busy))
        for job in busy:
            _encode_shard(partial, job, encoder, bar, wait=True)
        encoded += int(bar.n) if progress else total
    return encoded


def _encode_shard(partial: PartialSet, job: _Job, encoder: ShardEncoder, bar: tqdm[Any], *, wait: bool) -> bool:
    """Encode a shard unless it is finished by now; False where another process is at it and `wait` is false."""
    lock = partial.lock_shard(job.entry.name, wait=wait)
    if lock is None:
        return False
    with lock:
        if partial.finished(job.entry.name) is None:
            bad: list[tuple[str, BadClip]] = []
            partial.write(job.entry.name, encoder.samples(job.entry, bad, lambda: bar.update(1)), (), bad)
    return True


def _assemble(
    partial: PartialSet,
    jobs: Sequence[_Job],
    encoding: Encoding,
    encoder: ShardEncoder,
    digest: str,
    generator: Mapping[str, Any],
) -> CacheManifest:
    splits: dict[str, list[EncodedShard]] = {}
    for job in jobs:
        finished = partial.finished(job.entry.name)
        assert finished is not None, "the caller has looked"
        splits.setdefault(job.split, []).append(_encoded_shard(partial.shards, job, finished))
    unusable = {key: why for shards in splits.values() for shard in shards for key, why in shard.unusable.items()}
    if not any(shard.clips for shards in splits.values() for shard in shards):
        raise ValueError(f"output={partial.output}: no clip can be encoded; the first: {next(iter(unusable.values()))}")
    rows, channels, blanks = encoder.blanks()
    files = {name: to_npy(blank) for name, blank in blanks.items()}
    for name, data in files.items():
        (partial.shards / name).write_bytes(data)
    manifest = CacheManifest(
        encoding=encoding,
        rows=rows,
        latent_channels=channels,
        blanks={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        generator={"tool": tool_version(), **generator},
        input_sha256=digest,
        splits={name: tuple(shards) for name, shards in splits.items()},
    )
    write_cache_manifest(manifest, partial.shards)
    return manifest


def _encoded_shard(folder: Path, job: _Job, finished: FinishedShard) -> EncodedShard:
    clips = {}
    if finished.entry is not None:
        path = folder / finished.entry.name
        for sample in read_index(path):
            clips[sample.key] = json.loads(read_members(path, sample, ("json",))["json"])["content"]
    return EncodedShard(
        entry=finished.entry,
        source=job.entry.name,
        source_sha256=job.entry.sha256,
        clips=clips,
        unusable={key: str(error) for key, error in finished.bad},
    )


def _digest(jobs: Sequence[_Job], encoding: Encoding) -> str:
    content = {
        "version": VERSION,
        "framing": FRAMING,
        "encoding": asdict(encoding),
        "shards": [[job.split, job.entry.name, job.entry.sha256] for job in jobs],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_output(output: Path) -> None:
    """Refuse to touch a folder that is no cache, whatever `overwrite` says."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    try:
        read_cache_manifest(output, key="output")
    except ValueError as error:
        raise ValueError(
            f"output={output}: exists and is not a cache of this version; choose another folder or remove it"
        ) from error


def _existing(output: Path, digest: str, overwrite: bool) -> CacheManifest | None:
    """Return the manifest of an equal cache that is there; with `overwrite` only if its checksums are right."""
    if not (output / FILE_NAME).is_file():
        return None
    manifest = read_cache_manifest(output, key="output")
    entries = [shard.entry for shards in manifest.splits.values() for shard in shards if shard.entry is not None]
    if overwrite:
        whole = manifest.input_sha256 == digest and all(entry.matches(output / entry.name) for entry in entries)
        return manifest if whole else None
    if manifest.input_sha256 != digest:
        raise ValueError(
            f"output={output}: holds a cache of other clips, encoders or settings; choose another folder or set "
            "encode.overwrite=true"
        )
    for entry in entries:
        path = output / entry.name
        if not path.is_file() or path.stat().st_size != entry.bytes:
            raise ValueError(f"{path}: is missing or cut; set encode.overwrite=true to encode again")
    return manifest


def encoding_of(encoders: Mapping[str, str], resolution: tuple[int, int], settings: EncodeSettings) -> Encoding:
    """Return what a run of `encode` is going to do; `encoders` are the identities of all towers."""
    settings.validate()
    used = ("first_stage", "text", "image") if settings.image_tokens else ("first_stage", "text")
    return Encoding(
        encoders={name: encoders[name] for name in used},
        resolution=resolution,
        dtype=settings.dtype,
        precision=settings.precision.value,
        frames_at_once=settings.frames_at_once,
    )
