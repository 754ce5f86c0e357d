"""Pack posed clips into shards: inspect every clip, plan the shards, encode, write, and only then show the result."""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from data_pipeline.bad_clips import BadClip, DropReport
from data_pipeline.layouts.clip import PosedClip, ReadSettings, SourceFolder
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME, Manifest, ShardEntry, Split, read_manifest, write_manifest
from data_pipeline.parallel import Runner, default_processes, progress_bar, workers
from data_pipeline.realestate10k.encode import FrameFormat, encode_clip
from data_pipeline.realestate10k.inspect import InspectedClip, inspect_clip
from data_pipeline.shard_writer import write_shard
from data_pipeline.splits import plan_shards, split_sources

REPORT_NAME = "pack_report.json"
_FAR_MICROSECONDS = 8000  # beyond it annotation and frame are known to disagree visibly (RealEstate10K's own tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """How a raw folder is packed."""

    reading: ReadSettings
    frame_format: FrameFormat
    splits: dict[str, float]
    """Fractions by split; used where pose_files/ has no <split>/ folders."""
    samples_per_shard: int
    min_shards: int
    """Per split: training wants a shard for every reading process."""
    min_frames: int
    default_caption: str | None
    on_bad_clip: Literal["stop", "drop"]
    max_drop_rate: float
    overwrite: bool
    seed: int
    processes: int | None
    """None: one for each core this process may use."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key in ("samples_per_shard", "min_shards", "min_frames", "processes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"pack.{key}={value}: must be at least 1")
        frames = self.frame_format
        if frames.short_side < 16 or frames.gop < 1 or not 0 <= frames.crf <= 51:
            raise ValueError(
                f"pack.frame_format={asdict(frames)}: expected short_side >= 16, gop >= 1 and crf from 0 to 51"
            )
        if not 0 <= self.max_drop_rate <= 1:
            raise ValueError(f"pack.max_drop_rate={self.max_drop_rate}: must be between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """What `pack` did."""

    folder: Path
    manifest: Manifest
    report: DropReport | None
    """None where an equal set was already there."""


def pack(
    source: Path, output: Path, settings: PackSettings, *, generator: Mapping[str, Any], progress: bool
) -> PackResult:
    """Pack a folder of posed videos (docs/layouts.md) into a shard set at `output`.

    `output` appears complete or not at all. An equal set that is already there is kept. `generator` goes into the
    manifest: where the raw folder came from. Raises ValueError for a folder
    that is no such dataset, for a bad clip (on_bad_clip=stop), for too many of them (drop), and for an `output` that
    holds something else (unless overwrite).
    """
    settings.validate()
    dataset = open_source(source, settings.reading)
    _check_output(output)
    report = DropReport(clips_found=len(dataset.clips))
    with workers(settings.processes or default_processes()) as run:
        clips = _inspect(dataset, settings, report, run, progress)
        plan = _plan(clips, settings)
        digest = _input_digest(clips, plan, settings)
        if (existing := _existing(output, digest, settings.overwrite)) is not None:
            return PackResult(folder=output, manifest=existing, report=None)
        with _appearing(output) as folder:
            splits = _write(folder, clips, plan, settings, report, run, progress)
            _check_drop_rate(report, settings)
            metric = all(clip.files.metric_scale is not None for clip in clips.values())
            manifest = Manifest(
                scale_policy="metric" if metric else "relative",
                frame_format={
                    "container": "mp4",
                    "codec": "h264",
                    "pixels": "yuv420p",
                    **asdict(settings.frame_format),
                },
                generator={"tool": tool_version(), "layout": dataset.layout.value, **generator},
                seed=settings.seed,
                input_sha256=digest,
                splits=splits,
            )
            (folder / REPORT_NAME).write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
            write_manifest(manifest, folder)
    return PackResult(folder=output, manifest=manifest, report=report)


def tool_version() -> str:
    """Return the program and version that stand in manifests and samples."""
    try:
        return f"cami2v {version('cami2v')}"
    except PackageNotFoundError:
        return "cami2v (not installed)"


def _inspect(
    dataset: SourceFolder, settings: PackSettings, report: DropReport, run: Runner, progress: bool
) -> dict[str, InspectedClip]:
    job = functools.partial(_try_inspect, min_frames=settings.min_frames, default_caption=settings.default_caption)
    # Clips of one source one after another: each process then opens its video once.
    files = sorted(dataset.clips, key=lambda clip: (clip.address, clip.clip_id))
    clips: dict[str, InspectedClip] = {}
    for each, result in zip(
        files, progress_bar(run(job, files), what="inspect", unit="clip", total=len(files), show=progress), strict=True
    ):
        if isinstance(result, BadClip):
            _drop(report, each.clip_id, result, settings)
            continue
        clips[each.clip_id] = result
        offset = int(abs(result.offsets_microseconds).max())
        if offset > _FAR_MICROSECONDS:
            report.far_timestamps_microseconds[each.clip_id] = offset
    _check_drop_rate(report, settings)
    return clips


def _plan(clips: Mapping[str, InspectedClip], settings: PackSettings) -> dict[str, list[list[str]]]:
    if all(clip.files.split is None for clip in clips.values()):
        dealt = split_sources([clip.source_id for clip in clips.values()], settings.splits)
        split_of = {clip_id: dealt[clip.source_id] for clip_id, clip in clips.items()}
    else:
        split_of = {clip_id: str(clip.files.split) for clip_id, clip in clips.items()}
    by_split: dict[str, list[tuple[str, str]]] = {}
    for clip_id, clip in clips.items():
        by_split.setdefault(split_of[clip_id], []).append((clip_id, clip.source_id))
    return plan_shards(
        by_split, samples_per_shard=settings.samples_per_shard, min_shards=settings.min_shards, seed=settings.seed
    )


def _write(
    folder: Path,
    clips: Mapping[str, InspectedClip],
    plan: Mapping[str, list[list[str]]],
    settings: PackSettings,
    report: DropReport,
    run: Runner,
    progress: bool,
) -> dict[str, Split]:
    job = functools.partial(_try_encode, frame_format=settings.frame_format, tool=tool_version())
    ordered = [clips[clip_id] for shards in plan.values() for shard in shards for clip_id in shard]
    encoded = iter(progress_bar(run(job, ordered), what="encode", unit="clip", total=len(ordered), show=progress))
    splits = {}
    for split, shards in plan.items():
        entries: list[ShardEntry] = []
        sources: set[str] = set()
        for ids in shards:
            samples = []
            for clip_id in ids:
                result = next(encoded)
                if isinstance(result, BadClip):
                    _drop(report, clip_id, result, settings)
                    continue
                samples.append((clip_id, len(clips[clip_id].frame_indices), result))
                sources.add(clips[clip_id].source_id)
            if samples:
                entries.append(write_shard(folder / f"{split}-{len(entries):06d}.tar", samples))
        if entries:
            splits[split] = Split(
                samples=sum(entry.samples for entry in entries), shards=tuple(entries), sources=tuple(sorted(sources))
            )
    return splits


def _try_inspect(files: PosedClip, *, min_frames: int, default_caption: str | None) -> InspectedClip | BadClip:
    try:
        return inspect_clip(files, min_frames=min_frames, default_caption=default_caption)
    except BadClip as error:
        return error


def _try_encode(clip: InspectedClip, *, frame_format: FrameFormat, tool: str) -> dict[str, bytes] | BadClip:
    try:
        return encode_clip(clip, frame_format, tool)
    except BadClip as error:
        return error


def _drop(report: DropReport, clip_id: str, error: BadClip, settings: PackSettings) -> None:
    if settings.on_bad_clip == "stop":
        raise ValueError(
            f"{error} [{error.reason}; pack.on_bad_clip=drop leaves such clips out and reports them]"
        ) from error
    report.drop(clip_id, error)


def _check_drop_rate(report: DropReport, settings: PackSettings) -> None:
    rate = report.total / report.clips_found
    if rate > settings.max_drop_rate or report.total == report.clips_found:
        counts = ", ".join(f"{reason} {len(clips)}" for reason, clips in sorted(report.dropped.items()))
        example = next(iter(next(iter(report.dropped.values())).values()))
        raise ValueError(
            f"{report.total} of {report.clips_found} clips would be left out ({counts}), more than "
            f"pack.max_drop_rate={settings.max_drop_rate:g} allows; the first: {example}"
        )


def _input_digest(
    clips: Mapping[str, InspectedClip], plan: Mapping[str, list[list[str]]], settings: PackSettings
) -> str:
    content = {
        "tool": tool_version(),
        "frame_format": asdict(settings.frame_format),
        "plan": plan,
        "clips": [
            [clip_id, clip.video_sha256, clip.poses_sha256, clip.captions, clip.files.metric_scale]
            for clip_id, clip in sorted(clips.items())
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_output(output: Path) -> None:
    """Refuse to touch a folder that is no shard set, whatever `overwrite` says."""
    if output.exists() and not (output / FILE_NAME).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output}: exists and is not a shard set; choose another folder or remove it")


def _existing(output: Path, digest: str, overwrite: bool) -> Manifest | None:
    if overwrite or not (output / FILE_NAME).is_file():
        return None
    manifest = read_manifest(output)
    sizes = {shard.name: shard.bytes for split in manifest.splits.values() for shard in split.shards}
    broken = [name for name, size in sizes.items() if not _has_size(output / name, size)]
    if broken:
        raise ValueError(
            f"output={output}: holds this shard set, but {broken[0]} is missing or cut; set pack.overwrite=true"
        )
    if manifest.input_sha256 != digest:
        raise ValueError(
            f"output={output}: holds a shard set made from other clips or with other settings; "
            "choose another folder or set pack.overwrite=true"
        )
    return manifest


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `output` if the block succeeds, and goes away if it does not."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=output.parent))
    try:
        yield folder
        folder.chmod(0o755)
        if output.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old-", dir=output.parent))
            output.rename(old / output.name)
            folder.rename(output)
            shutil.rmtree(old)
        else:
            folder.rename(output)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
