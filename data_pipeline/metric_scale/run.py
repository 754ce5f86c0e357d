"""Estimate the metric scale of every clip of a folder or a shard set, and write depth_scale.json."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.layouts.clip import PosedClip, ReadSettings
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME as MANIFEST
from data_pipeline.metric_scale.clips import PlacedClip, PlacedPoints, ScaleJob, place_points
from data_pipeline.metric_scale.depth import DepthSource
from data_pipeline.metric_scale.estimate import Lack, ScaleEstimate, Unscaled, estimate_scale
from data_pipeline.metric_scale.progress import Progress, Row
from data_pipeline.metric_scale.settings import ScaleSettings
from data_pipeline.metric_scale.side_file import EstimatedScale, ScaleFile, read_scale_file
from data_pipeline.parallel import default_processes, progress_bar, workers
from data_pipeline.validate.findings import Observation
from data_pipeline.validate.shards import ShardClipJob, every_sample, list_set

PROCEDURE = "median of metric over triangulated depth, 1"
"""Raise the number with every change of the computation: estimates of an older one are then not mixed with new ones."""


@dataclass(slots=True, kw_only=True)
class ScaleReport:
    """What became of the clips."""

    given: int = 0
    """Clips that have a scale already; it is kept."""
    remembered: int = 0
    """Clips taken over from an earlier run."""
    scaled: dict[str, Row] = field(default_factory=dict)
    unscaled: dict[str, Row] = field(default_factory=dict)

    def add(self, clip_id: str, row: Row) -> None:
        """Count a clip that has no scale of its own."""
        (self.scaled if "metres_per_unit" in row else self.unscaled)[clip_id] = row

    def lines(self) -> list[str]:
        """Say the report in a few lines for a person."""
        clips = self.given + len(self.scaled) + len(self.unscaled)
        line = (
            f"{clips} clips: {len(self.scaled)} scaled, {self.given} have a scale already, {len(self.unscaled)} without"
        )
        lines = [f"{line} ({self.remembered} taken over from an earlier run)" if self.remembered else line]
        for key, what in (("metres_per_unit", "metres per unit"), ("points", "points"), ("spread", "spread")):
            values = [row[key] for row in self.scaled.values()]
            if values:
                lines.append(f"  {what}: median {np.median(values):.3g}, {min(values):.3g} to {max(values):.3g}")
        by_reason: dict[str, list[str]] = defaultdict(list)
        for clip_id, row in sorted(self.unscaled.items()):
            by_reason[row["reason"]].append(clip_id)
        for reason, ids in sorted(by_reason.items()):
            lines.append(f"  {reason}: {len(ids)} ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})")
        return lines


def estimate_scales(
    source: Path,
    output: Path,
    settings: ScaleSettings,
    reading: ReadSettings,
    depth: DepthSource,
    *,
    progress: bool,
) -> ScaleReport:
    """Estimate what is not known yet and write `output`; a clip that cannot be estimated never stops the others.

    An interrupted run is continued, and what `output` says of clips that have not changed is taken over. Raises
    ValueError for a `source` that is neither folder nor set, and for an `output` of another procedure (unless
    settings.overwrite).
    """
    settings.validate()
    clips = _clips(source, reading)
    procedure = {"computation": PROCEDURE, "depth": dict(depth.description()), "settings": settings.procedure()}
    known = _known(output, procedure, settings.overwrite)
    report = ScaleReport()
    with (
        Progress(output, procedure, discard=settings.overwrite) as kept,
        workers(settings.processes or default_processes()) as run,
    ):
        known |= kept.rows
        jobs = (_job(clip, depth, known) for clip in clips)
        placed = run(functools.partial(place_points, settings=settings), jobs)
        for clip in progress_bar(placed, what="scale", unit="clip", total=len(clips), show=progress):
            if clip.given:
                report.given += 1
                continue
            row, is_new = _row(clip, known, depth, settings)
            report.add(clip.clip_id, row)
            report.remembered += not is_new
            if is_new and clip.key is not None:
                kept.add(clip.clip_id, row)
        ScaleFile(procedure=procedure, scaled=report.scaled, unscaled=report.unscaled).write(output)
        kept.finish()
    return report


def _row(clip: PlacedClip, known: Mapping[str, Row], depth: DepthSource, settings: ScaleSettings) -> tuple[Row, bool]:
    """Return what stands in the file for a clip, and whether it was computed now."""
    if clip.result is None:
        return known[clip.clip_id], False
    result = _with_depth(clip.result, depth, settings) if isinstance(clip.result, PlacedPoints) else clip.result
    # What may be repaired without a change of the clip is not remembered.
    key = None if isinstance(result, Unscaled) and result.reason is Lack.DEPTH_FAILED else clip.key
    identity = {"key": key, "cameras_sha256": clip.cameras_sha256} if key else {}
    return {**asdict(result), **identity}, True


def _with_depth(placed: PlacedPoints, depth: DepthSource, settings: ScaleSettings) -> ScaleEstimate | Unscaled:
    try:
        maps = depth(placed.frames)
    except ValueError as error:
        return Unscaled(reason=Lack.DEPTH_FAILED, message=str(error))
    return estimate_scale(placed.points, maps, settings)


def _known(output: Path, procedure: Mapping[str, Any], overwrite: bool) -> dict[str, Row]:
    """Return the rows of an earlier, finished run."""
    if not output.exists() or overwrite:
        return {}
    file = read_scale_file(output)
    if file.procedure != procedure:
        differing = sorted(key for key in procedure if file.procedure.get(key) != procedure[key])
        raise ValueError(
            f"output={output}: holds estimates made in another way ({', '.join(differing)} differ); give another "
            "output, or set scale.overwrite=true"
        )
    return {**file.scaled, **file.unscaled}


def _job(clip: PosedClip | ShardClipJob, depth: DepthSource, known: Mapping[str, Row]) -> ScaleJob:
    job = ScaleJob(clip=clip, depth_stamp="", known_key=None)
    return replace(
        job,
        depth_stamp=depth.stamp(job.clip_id, job.split),
        known_key=known.get(job.clip_id, {}).get("key"),
    )


def _clips(source: Path, reading: ReadSettings) -> list[PosedClip | ShardClipJob]:
    """List the clips, those of one source video one after another; estimates beside a folder are not its own scales."""
    if (source / MANIFEST).is_file():
        listed = list_set(source)
        if isinstance(listed, Observation):
            raise ValueError(f"{source / MANIFEST}: not a manifest ({listed.found}); see cami2v data validate")
        return list(every_sample(listed))
    found = sorted(open_source(source, reading).clips, key=lambda clip: (clip.address, clip.clip_id))
    return [
        replace(clip, metric_scale=None) if isinstance(clip.metric_scale, EstimatedScale) else clip for clip in found
    ]
