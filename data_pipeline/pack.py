"""Pack posed clips into shards: inspect every clip, plan the shards, encode, write, and only then show the result."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from data_pipeline.array_tasks import Share, share_of
from data_pipeline.bad_clips import BadClip, DropReport, Reason
from data_pipeline.inspection import Inspection, PlannedClip, groups_of, inspect_all
from data_pipeline.layouts.clip import PosedClip, ReadSettings, SourceFolder
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME, Manifest, Split, read_manifest, write_manifest
from data_pipeline.metric_scale import side_file as scale_file
from data_pipeline.pack_shards import ClipJob, Encoder, PlannedShard, damaged, pack_shards
from data_pipeline.parallel import Runner, default_processes, workers
from data_pipeline.partial_set import PartialSet, partial_set
from data_pipeline.realestate10k.encode import PackedFormat
from data_pipeline.splits import assign_splits, plan_shards, read_split_lists

REPORT_NAME = "pack_report.json"
_FAR_MICROSECONDS = 8000  # beyond it annotation and frame are known to disagree visibly (RealEstate10K's own tools)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSettings:
    """How a raw folder is packed."""

    reading: ReadSettings
    frame_format: PackedFormat
    scale_policy: Literal["relative", "first_frame_normalized", "metric"]
    """What the loader does with translations unless told otherwise; metric: clips without a metric scale are bad."""
    splits: dict[str, float]
    """Fractions by split; used where pose_files/ has no <split>/ folders."""
    split_lists: dict[str, str | None]
    """Files of source or clip ids by split: exactly those are in it."""
    on_unlisted_clip: Literal["stop", "drop"]
    """What to do with clips that a list leaves no place for."""
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
    task: int | None
    tasks: int | None
    """Which share of the shards this run packs; None: what Slurm's job array says, all of them outside of one."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        for key in ("samples_per_shard", "min_shards", "min_frames", "processes"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise ValueError(f"pack.{key}={value}: must be at least 1")
        self.frame_format.check("pack.frame_format")
        if not 0 <= self.max_drop_rate <= 1:
            raise ValueError(f"pack.max_drop_rate={self.max_drop_rate}: must be between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackResult:
    """What `pack` did."""

    folder: Path
    manifest: Manifest | None
    """None where other tasks have not finished their shards."""
    report: DropReport | None
    """None where an equal set was already there."""
    shards_missing: int
    """Shards that other tasks have not finished."""


def pack(
    source: Path, output: Path, settings: PackSettings, *, generator: Mapping[str, Any], progress: bool
) -> PackResult:
    """Pack a folder of posed videos (docs/layouts.md) into a shard set at `output`.

    `output` appears complete or not at all; what a killed run finished is kept beside it and continued. An equal set
    that is already there is kept. `generator` goes into the manifest: where the raw folder came from. Raises
    ValueError for a folder that is no such dataset, for a bad clip (on_bad_clip=stop), for too many of them (drop),
    for split lists that contradict each other, and for an `output` that holds something else (unless overwrite).
    """
    settings.validate()
    share = share_of(settings.task, settings.tasks)
    dataset = open_source(source, settings.reading)
    _check_output(output)
    report = DropReport(clips_found=len(dataset.clips))
    with partial_set(output) as partial, workers(settings.processes or default_processes()) as run:
        inspection = Inspection(
            folder=partial.inspection,
            min_frames=settings.min_frames,
            default_caption=settings.default_caption,
            tool=tool_version(),
        )
        jobs = _inspect(dataset, inspection, share, settings, report, run, progress)
        shards = _plan({clip_id: job.planned for clip_id, job in jobs.items()}, settings, report)
        digest = _input_digest(jobs, shards, settings)
        if (existing := _existing(output, digest, settings.overwrite)) is not None:
            partial.complete = digest
            return PackResult(folder=output, manifest=existing, report=None, shards_missing=0)
        partial.adopt(digest, discard=settings.overwrite)
        finish = functools.partial(
            _finish,
            partial,
            jobs=jobs,
            encoder=Encoder(inspection=inspection, frame_format=settings.frame_format),
            run=run,
            on_bad_clip=functools.partial(_refuse, settings),
            progress=progress,
        )
        mine = share.of(shards)
        finish(mine)
        with partial.assembling():
            existing = _existing(output, digest, settings.overwrite)
            if existing is None and (missing := partial.missing([shard.name for shard in shards])):
                return PackResult(folder=output, manifest=None, report=report, shards_missing=len(missing))
            if existing is None:  # otherwise another task was last
                finish([shard for shard in shards if shard not in mine])  # perhaps damaged since an earlier run
                splits = _splits(partial, shards, settings, report)
                packed = [
                    jobs[clip_id] for each in shards for clip_id in each.clip_ids if not report.has_dropped(clip_id)
                ]
                existing = _manifest(packed, splits, digest, dataset, settings, generator)
                _write_json(partial.shards / REPORT_NAME, report.as_json())
                write_manifest(existing, partial.shards)
                partial.appear()
            partial.complete = digest
    return PackResult(folder=output, manifest=existing, report=report, shards_missing=0)


def tool_version() -> str:
    """Return the program and version that stand in manifests and samples."""
    try:
        return f"cami2v {version('cami2v')}"
    except PackageNotFoundError:
        return "cami2v (not installed)"


def _inspect(
    dataset: SourceFolder,
    inspection: Inspection,
    share: Share,
    settings: PackSettings,
    report: DropReport,
    run: Runner,
    progress: bool,
) -> dict[str, ClipJob]:
    """Judge every clip; return those that can be packed, ordered by id, and report the others."""
    groups = groups_of(dataset.clips)
    tried = scale_file.read_beside(dataset.folder).unscaled
    group_of = {files.clip_id: group for group in groups for files in group}
    jobs: dict[str, ClipJob] = {}
    for files, result in inspect_all(groups, inspection, share, run, progress=progress):
        if not isinstance(result, BadClip) and settings.scale_policy == "metric" and not result.metric:
            result = _without_scale(files, dataset.folder, tried)
        if isinstance(result, BadClip):
            _refuse(settings, result)
            report.drop(files.clip_id, result)
            continue
        jobs[files.clip_id] = ClipJob(planned=result, files=files, group=group_of[files.clip_id])
        if result.farthest_microseconds > _FAR_MICROSECONDS:
            report.far_timestamps_microseconds[files.clip_id] = result.farthest_microseconds
    _check_drop_rate(report, settings)
    return dict(sorted(jobs.items()))


def _without_scale(files: PosedClip, folder: Path, tried: Mapping[str, Mapping[str, Any]]) -> BadClip:
    """Word what a clip of a metric set lacks; `tried` are the clips an estimation gave up on."""
    if files.clip_id in tried:
        why, remedy = f"could not be estimated ({tried[files.clip_id]['reason']})", "give it in metric_scale.json"
    else:
        why, remedy = "is not known", f"estimate it: cami2v data scale source={folder}"
    return BadClip(
        Reason.METRIC_SCALE_MISSING,
        f"{files.where}: pack.scale_policy=metric, but the metric scale of clip {files.clip_id} {why}; {remedy}",
    )


def _plan(clips: Mapping[str, PlannedClip], settings: PackSettings, report: DropReport) -> list[PlannedShard]:
    assignment = assign_splits(
        {clip_id: (clip.source_id, clip.split) for clip_id, clip in clips.items()},
        settings.splits,
        read_split_lists(settings.split_lists),
    )
    report.unlisted |= assignment.unlisted
    report.absent |= assignment.absent
    if assignment.unlisted and settings.on_unlisted_clip == "stop":
        clip_id, why = min(assignment.unlisted.items())
        raise ValueError(
            f"pack.split_lists: {len(assignment.unlisted)} clips fit no split; the first is {clip_id}: {why}. List it "
            "or its source, or set pack.on_unlisted_clip=drop to leave such clips out"
        )
    by_split: dict[str, list[tuple[str, str]]] = {}
    for clip_id, split in sorted(assignment.split_of.items()):
        by_split.setdefault(split, []).append((clip_id, clips[clip_id].source_id))
    plan = plan_shards(
        by_split, samples_per_shard=settings.samples_per_shard, min_shards=settings.min_shards, seed=settings.seed
    )
    return [
        PlannedShard(name=f"{split}-{number:06d}.tar", split=split, clip_ids=tuple(ids))
        for split, rows in plan.items()
        for number, ids in enumerate(rows)
    ]


def _finish(
    partial: PartialSet,
    shards: Sequence[PlannedShard],
    *,
    jobs: Mapping[str, ClipJob],
    encoder: Encoder,
    run: Runner,
    on_bad_clip: Callable[[BadClip], None],
    progress: bool,
) -> None:
    """Check the shards an earlier run finished, and pack the others."""
    damaged(partial, [shard.name for shard in shards], run)
    pack_shards(partial, shards, jobs, encoder, run, on_bad_clip=on_bad_clip, progress=progress)


def _splits(
    partial: PartialSet, shards: Sequence[PlannedShard], settings: PackSettings, report: DropReport
) -> dict[str, Split]:
    """Collect what is in the finished shards, and report the clips that did not decode."""
    splits = {}
    for split in dict.fromkeys(shard.split for shard in shards):
        records = [partial.finished(shard.name) for shard in shards if shard.split == split]
        finished = [record for record in records if record is not None]
        for clip_id, error in (bad for each in finished for bad in each.bad):
            _refuse(settings, error)
            report.drop(clip_id, error)
        entries = tuple(each.entry for each in finished if each.entry is not None)
        if entries:
            splits[split] = Split(
                samples=sum(entry.samples for entry in entries),
                shards=entries,
                sources=tuple(sorted({source for each in finished for source in each.sources})),
            )
    _check_drop_rate(report, settings)
    return splits


def _manifest(
    packed: Sequence[ClipJob],
    splits: dict[str, Split],
    digest: str,
    dataset: SourceFolder,
    settings: PackSettings,
    generator: Mapping[str, Any],
) -> Manifest:
    return Manifest(
        scale_policy=settings.scale_policy,
        metric_scale=_metric_scale(packed, dataset.folder),
        frame_format=settings.frame_format.description(),
        generator={
            "tool": tool_version(),
            "layout": dataset.layout.value,
            "reading": settings.reading.given(),
            **generator,
        },
        seed=settings.seed,
        input_sha256=digest,
        splits=splits,
    )


def _metric_scale(packed: Sequence[ClipJob], folder: Path) -> dict[str, Any]:
    """Count where the clips' metric scales come from, and say how they were estimated."""
    estimated = sum(isinstance(job.files.metric_scale, scale_file.EstimatedScale) for job in packed)
    without = sum(not job.planned.metric for job in packed)
    record: dict[str, Any] = {"given": len(packed) - estimated - without, "estimated": estimated, "without": without}
    if estimated:
        record["procedure"] = scale_file.read_beside(folder).procedure
    return record


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _refuse(settings: PackSettings, error: BadClip) -> None:
    if settings.on_bad_clip == "stop":
        raise ValueError(
            f"{error} [{error.reason}; pack.on_bad_clip=drop leaves such clips out and reports them]"
        ) from error


def _check_drop_rate(report: DropReport, settings: PackSettings) -> None:
    rate = report.total / report.clips_found
    if rate > settings.max_drop_rate or report.total == report.clips_found:
        counts = ", ".join(f"{reason} {len(clips)}" for reason, clips in sorted(report.dropped.items()))
        example = next(iter(next(iter(report.dropped.values())).values()))
        raise ValueError(
            f"{report.total} of {report.clips_found} clips would be left out ({counts}), more than "
            f"pack.max_drop_rate={settings.max_drop_rate:g} allows; the first: {example}"
        )


def _input_digest(jobs: Mapping[str, ClipJob], shards: Sequence[PlannedShard], settings: PackSettings) -> str:
    content = {
        "tool": tool_version(),
        "frame_format": settings.frame_format.description(),
        "scale_policy": settings.scale_policy,
        "plan": [[shard.name, shard.clip_ids] for shard in shards],
        "clips": [[clip_id, job.planned.sha256] for clip_id, job in jobs.items()],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_output(output: Path) -> None:
    """Refuse to touch a folder that is no shard set, whatever `overwrite` says."""
    if output.exists() and not (output / FILE_NAME).is_file() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output}: exists and is not a shard set; choose another folder or remove it")


def _existing(output: Path, digest: str, overwrite: bool) -> Manifest | None:
    """Return the manifest of an equal set that is there; with `overwrite` only if its checksums are right."""
    if not (output / FILE_NAME).is_file():
        return None
    if overwrite:
        return _equal_and_intact(output, digest)
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


def _equal_and_intact(output: Path, digest: str) -> Manifest | None:
    try:
        manifest = read_manifest(output)
    except ValueError:
        return None
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    equal = manifest.input_sha256 == digest and all(shard.matches(output / shard.name) for shard in shards)
    return manifest if equal else None


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size
