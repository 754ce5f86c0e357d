"""Third stage: what was measured, as a table that cannot be read without its number of clips and failures."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from platform import python_version
from typing import Any

import numpy as np

from cami2v.evaluation.folder import EvaluationFolder, read_json, write_json
from cami2v.evaluation.frame_metrics import FrameErrors
from cami2v.evaluation.measure import Measurement
from cami2v.evaluation.tables import markdown_report

FIGURES = ("RotErr_sum_rad", "TransErr_sum", "CamMC_sum", "RotErr_mean_deg", "TransErr_mean", "CamMC_mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSummary:
    """One figure of one video set. A clip's value is the median over its successful trials."""

    mean: float | None
    """Over the clips with at least one successful trial; None where there are none."""
    median: float | None
    penalised_mean: float
    """Over all clips. A failed clip counts as a motionless estimate would, or as the set's worst clip if that is worse:
    failing never pays."""
    trial_spread: float | None
    """Standard deviation over a clip's successful trials, mean over clips that have two or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """One video set. Every requested clip is in `clips`."""

    clips: int
    failed_clips: int
    trials: int
    failed_trials: int
    figures: dict[str, FigureSummary]
    """Empty for sets whose paths are not estimated."""
    frame_errors: dict[str, float | None]
    """MSE (pixel values in [0, 1]) and PSNR_dB over frames 1..T-1, mean over the clips compared; PSNR_dB is None where
    videos are identical."""
    compared_clips: int


def report(folder: EvaluationFolder) -> str:
    """Write results.json, results.csv and report.md; return the latter's text.

    Raises ValueError where a clip of a video set was not measured: a table over some of the clips is not written.
    """
    measurements = {video_set: _read(folder, video_set) for video_set in folder.video_sets()}
    if not measurements:
        raise ValueError(f"{folder.root}: no videos; run the generate and measure stages first")
    summaries = {video_set: summarise(rows) for video_set, rows in measurements.items()}
    everything = [row for rows in measurements.values() for row in rows]
    results = {
        "evaluation": folder.identity(),
        "camera_effect": folder.camera_effect(),
        "estimator": _estimator(everything),
        "versions": versions(),
        "summary": {video_set: asdict(summary) for video_set, summary in summaries.items()},
        "clips": [{key: value for key, value in row.items() if key != "measured_with"} for row in everything],
    }
    write_json(folder.root / "results.json", results)
    _write_csv(folder, everything)
    text = markdown_report(results)
    (folder.root / "report.md").write_text(text, encoding="utf-8")
    return text


def summarise(rows: Sequence[Measurement]) -> SetSummary:
    """Summarise the measurements of one video set."""
    trials = [trial for row in rows for trial in row["trials"]]
    compared = [
        FrameErrors(mean_squared_error=np.array(mse)).figures() for row in rows if (mse := row["mean_squared_error"])
    ]
    estimated = bool(trials)
    return SetSummary(
        clips=len(rows),
        failed_clips=sum(not _successes(row) for row in rows) if estimated else 0,
        trials=len(trials),
        failed_trials=sum(trial["failure"] is not None for trial in trials),
        figures={name: _summarise_figure(rows, name) for name in FIGURES} if estimated else {},
        frame_errors={name: _finite_mean([errors[name] for errors in compared]) for name in ("MSE", "PSNR_dB")}
        if compared
        else {},
        compared_clips=len(compared),
    )


def versions() -> dict[str, str]:
    """Return the versions of what decides a result."""
    packages = ("cami2v", "pycolmap", "torch", "numpy", "av", "decord")
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    found = {name: metadata.version(name) for name in packages if name in installed}
    return {"python": python_version(), **found}


def _summarise_figure(rows: Sequence[Measurement], name: str) -> FigureSummary:
    per_clip = [[trial["errors"][name] for trial in _successes(row)] for row in rows]
    values = [statistics.median(trials) for trials in per_clip if trials]
    spreads = [statistics.stdev(trials) for trials in per_clip if len(trials) > 1]
    penalties = [
        max([row["stationary"][name], *values]) for row, trials in zip(rows, per_clip, strict=True) if not trials
    ]
    return FigureSummary(
        mean=statistics.fmean(values) if values else None,
        median=statistics.median(values) if values else None,
        penalised_mean=statistics.fmean([*values, *penalties]),
        trial_spread=statistics.fmean(spreads) if spreads else None,
    )


def _successes(row: Measurement) -> list[dict[str, Any]]:
    return [trial for trial in row["trials"] if trial["failure"] is None]


def _finite_mean(values: Sequence[float]) -> float | None:
    mean = statistics.fmean(values)
    return mean if math.isfinite(mean) else None


def _read(folder: EvaluationFolder, video_set: str) -> list[Measurement]:
    clip_ids = folder.clip_ids()
    missing = [clip_id for clip_id in clip_ids if not folder.measurement(video_set, clip_id).exists()]
    if missing:
        raise ValueError(
            f"{folder.root}: {len(missing)} of {len(clip_ids)} clips of {video_set} are not measured (first "
            f"{missing[0]}); run the measure stage"
        )
    return [read_json(folder.measurement(video_set, clip_id)) for clip_id in clip_ids]


def _estimator(rows: Iterable[Measurement]) -> dict[str, Any]:
    settings = [{key: value for key, value in row["measured_with"].items() if key != "inputs"} for row in rows]
    if any(other != settings[0] for other in settings):
        raise ValueError("measurements were made with different estimator settings; run the measure stage again")
    return settings[0]


def _write_csv(folder: EvaluationFolder, rows: Iterable[Measurement]) -> None:
    header = ["video_set", "clip_id", "seed", "failure", "detail", *FIGURES, "points", "reprojection_error_pixels"]
    with (folder.root / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            for trial in row["trials"]:
                writer.writerow({**row, **trial, **trial.get("errors", {}), **trial.get("quality", {})})
