"""The Markdown text of an evaluation's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cami2v.evaluation.camera_effect import paragraph

_PUBLISHED = {"RotErr_sum_rad": "RotErr", "TransErr_sum": "TransErr", "CamMC_sum": "CamMC"}
_PER_FRAME = {"RotErr_mean_deg": "RotErr", "TransErr_mean": "TransErr", "CamMC_mean": "CamMC"}


def markdown_report(results: Mapping[str, Any]) -> str:
    """Write the tables of `report`'s results."""
    summary = results["summary"]
    estimated = {name: row for name, row in summary.items() if row["figures"]}
    compared = {name: row for name, row in summary.items() if row["compared_clips"]}
    parts = ["# Evaluation", paragraph(results["camera_effect"]), _facts(results)]
    if estimated:
        parts += [
            "## Camera errors, published convention",
            "Sum over frames; RotErr in radians; each path's translations divided by its own extent. Mean and median "
            "over the registered clips; a clip's value is the median of its trials.",
            _camera_table(estimated, _PUBLISHED),
            "## Camera errors, per frame",
            "Mean over frames 1..T-1; RotErr in degrees; otherwise as above.",
            _camera_table(estimated, _PER_FRAME),
            "## Failures counted",
            "Mean over all clips, published convention: a failed clip counts as a motionless camera would, or as the "
            "worst registered clip if that is worse. Trial spread: standard deviation over a clip's trials, mean over "
            "clips.",
            _penalised_table(estimated),
        ]
        if failures := _failure_rows(results["clips"]):
            parts += ["### Failed trials", _table(["videos", "clip", "seed", "reason", "detail"], failures)]
    if compared:
        parts += [
            "## Frame errors to the ground truth",
            "Frames 1..T-1, pixel values in [0, 1], mean over clips.",
            _frame_table(compared),
        ]
    return "\n\n".join(parts) + "\n"


def _facts(results: Mapping[str, Any]) -> str:
    lines = []
    for title in ("evaluation", "estimator", "versions"):
        if entries := results[title]:
            lines.append(f"- {title}: " + ", ".join(f"{key}={_short(value)}" for key, value in entries.items()))
    return "\n".join(lines)


def _camera_table(summary: Mapping[str, Any], names: Mapping[str, str]) -> str:
    header = ["videos", "clips", "registered", "failed trials"]
    header += [f"{label} {kind}" for label in names.values() for kind in ("mean", "median")]
    rows = []
    for video_set, row in summary.items():
        figures = [row["figures"][name][kind] for name in names for kind in ("mean", "median")]
        rows.append([_label(video_set), *_counts(row), *(_number(value) for value in figures)])
    return _table(header, rows)


def _penalised_table(summary: Mapping[str, Any]) -> str:
    header = ["videos", "clips", "registered", "failed trials"]
    header += [
        f"{label} {kind}" for label in _PUBLISHED.values() for kind in ("mean, failures counted", "trial spread")
    ]
    rows = []
    for video_set, row in summary.items():
        figures = [row["figures"][name][kind] for name in _PUBLISHED for kind in ("penalised_mean", "trial_spread")]
        rows.append([_label(video_set), *_counts(row), *(_number(value) for value in figures)])
    return _table(header, rows)


def _frame_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for video_set, row in summary.items():
        errors = row["frame_errors"]
        psnr = "identical" if errors["PSNR_dB"] is None else f"{errors['PSNR_dB']:.2f}"
        rows.append([_label(video_set), f"{row['compared_clips']}/{row['clips']}", f"{errors['MSE']:.5f}", psnr])
    return _table(["videos", "clips compared", "mean squared error", "PSNR (dB)"], rows)


def _failure_rows(clips: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [_label(clip["video_set"]), clip["clip_id"], str(trial["seed"]), trial["failure"], trial["detail"]]
        for clip in clips
        for trial in clip["trials"]
        if trial["failure"]
    ]


def _counts(row: Mapping[str, Any]) -> list[str]:
    registered = row["clips"] - row["failed_clips"]
    return [str(row["clips"]), f"{registered}/{row['clips']}", f"{row['failed_trials']}/{row['trials']}"]


def _label(video_set: str) -> str:
    label = video_set.replace("_", " ")
    return f"{label} (estimator's own error)" if video_set == "ground_truth" else label


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in line) + " |" for line in lines
    )
