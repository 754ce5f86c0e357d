"""Second stage: every clip of every video set, judged by every measure; one JSON file each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cami2v.evaluation.folder import GROUND_TRUTH, EvaluationFolder, read_json, write_json
from cami2v.evaluation.isolation import run_isolated
from cami2v.evaluation.measures.base import JudgedClip, Measure, Row
from cami2v.evaluation.stopwatch import SECONDS, stopwatch
from cami2v.file_hash import KnownHashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A clip that a measure has not judged yet, or judged from other files or with other settings."""

    clip: JudgedClip
    measured_with: dict[str, Any]


def open_jobs(
    folder: EvaluationFolder,
    measure: Measure,
    clip_ids: Sequence[str] | None = None,
    hashes: KnownHashes | None = None,
) -> list[Job]:
    """List what is not yet measured with these settings, of some clips or all.

    Every clip is judged in every video set: one without a video is a failure, not an absence. `hashes`, shared by calls
    for several measures, keeps them from reading every video again. Raises ValueError for a folder without clips or
    videos, and where a row that the measure needs is missing.
    """
    if clip_ids is not None and not clip_ids:
        return []
    if not folder.clip_ids() or not folder.video_sets():
        raise ValueError(
            f"{folder.root}: no cameras/*.npz or no videos/<set>/*.mp4 to measure; run the generate stage first"
        )
    settings = measure.describe()
    judged = [name for name in folder.video_sets() if measure.judges(name)]
    chosen = folder.clip_ids() if clip_ids is None else clip_ids
    sha256 = hashes or KnownHashes()
    jobs = [_job(folder, measure, name, clip_id, settings, sha256) for name in judged for clip_id in chosen]
    return [job for job in jobs if not _is_measured(folder, measure, job)]


def count_open(folder: EvaluationFolder, measures: Sequence[Measure]) -> int:
    """Count the clips of all sets that are not measured with these settings, without looking into the videos."""
    missing = 0 if folder.video_sets() else len(folder.clip_ids())
    for measure in measures:
        settings, judged = measure.describe(), [name for name in folder.video_sets() if measure.judges(name)]
        rows = [folder.measurement(measure.name, name, clip_id) for name in judged for clip_id in folder.clip_ids()]
        missing += sum(not path.exists() or _without_inputs(read_json(path)) != settings for path in rows)
    return missing


def measure_clips(folder: EvaluationFolder, measure: Measure, jobs: Sequence[Job], *, processes: int) -> Iterator[Row]:
    """Judge clips and store each row as it comes; isolated measures in `processes` processes, others in this one."""
    judge = partial(_judge, measure)
    judged = run_isolated(judge, jobs, processes=processes) if measure.isolated else ((job, judge(job)) for job in jobs)
    for job, row in judged:
        clip = job.clip
        stored = {
            "clip_id": clip.clip_id,
            "video_set": clip.video_set,
            "measured_with": job.measured_with,
            **(measure.crashed(clip) if row is None else row),
        }
        write_json(folder.measurement(measure.name, clip.video_set, clip.clip_id), stored)
        yield stored


def _judge(measure: Measure, job: Job) -> Row:
    with stopwatch() as seconds:
        row = measure.judge(job.clip)
    # Beside the result, not part of it: no two runs take the same time.
    return {**row, SECONDS: {name: round(spent, 3) for name, spent in seconds.items()}}


def _job(
    folder: EvaluationFolder,
    measure: Measure,
    video_set: str,
    clip_id: str,
    settings: dict[str, Any],
    sha256: KnownHashes,
) -> Job:
    video, true_video = folder.video(video_set, clip_id), folder.video(GROUND_TRUTH, clip_id)
    inputs: dict[str, str | None] = {
        "video": sha256(video) if video.exists() else None,
        "true_video": sha256(true_video) if true_video.exists() else None,
        "cameras": sha256(folder.cameras(clip_id)),
    }
    row, true_row = (_needed(folder, measure, name, clip_id) for name in (video_set, GROUND_TRUTH))
    if measure.needs is not None:
        inputs |= {"row": sha256(row) if row else None, "true_row": sha256(true_row) if true_row else None}
    clip = JudgedClip(
        clip_id=clip_id,
        video_set=video_set,
        video=video,
        true_video=true_video,
        cameras=folder.read_cameras(clip_id),
        row=row,
        true_row=true_row,
    )
    return Job(clip=clip, measured_with={**settings, "inputs": inputs})


def _needed(folder: EvaluationFolder, measure: Measure, video_set: str, clip_id: str) -> Path | None:
    """Return where the row that a measure needs lies; None where it needs none, or nobody has such videos."""
    if measure.needs is None or video_set not in folder.video_sets():
        return None
    path = folder.measurement(measure.needs, video_set, clip_id)
    if not path.exists():
        raise ValueError(
            f"{folder.root}: {measure.name} needs what {measure.needs} says of clip {clip_id} of {video_set}, which is "
            f"not measured; leave evaluation.measures.{measure.needs} on"
        )
    return path


def _without_inputs(row: Row) -> dict[str, Any]:
    return {key: value for key, value in row["measured_with"].items() if key != "inputs"}


def _is_measured(folder: EvaluationFolder, measure: Measure, job: Job) -> bool:
    stored = folder.measurement(measure.name, job.clip.video_set, job.clip.clip_id)
    return stored.exists() and read_json(stored)["measured_with"] == job.measured_with
