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
    estimated = {name: row for name, row in summary.items() if "poses" in row["facts"]}
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
    others = [name for name in results["figures"] if name not in {**_PUBLISHED, **_PER_FRAME}]
    if compared := {name: row for name, row in summary.items() if any(figure in row["figures"] for figure in others)}:
        parts += [
            "## Frames",
            _meanings(results["figures"], others),
            _figure_table(results["figures"], compared, others),
        ]
    if failures := _failure_rows(results["clips"]):
        header = ["videos", "clip", "measure", "trial", "reason", "detail"]
        parts += ["## What could not be measured", _table(header, failures)]
    return "\n\n".join(parts) + "\n"


def _facts(results: Mapping[str, Any]) -> str:
    lines = []
    for title, entries in (("evaluation", results["evaluation"]), *results["measures"].items()):
        if entries:
            lines.append(f"- {title}: " + ", ".join(f"{key}={_short(value)}" for key, value in entries.items()))
    lines.append("- versions: " + ", ".join(f"{key}={value}" for key, value in results["versions"].items()))
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
        spread = row["facts"]["poses"]["trial_spread"]
        figures = [value for name in _PUBLISHED for value in (row["figures"][name]["penalised_mean"], spread[name])]
        rows.append([_label(video_set), *_counts(row), *(_number(value) for value in figures)])
    return _table(header, rows)


def _meanings(figures: Mapping[str, Any], names: Sequence[str]) -> str:
    return "\n".join(f"- {figures[name]['label']}: {figures[name]['meaning']}" for name in names)


def _figure_table(figures: Mapping[str, Any], summary: Mapping[str, Any], names: Sequence[str]) -> str:
    units = [f" ({figures[name]['unit']})" if figures[name]["unit"] else "" for name in names]
    header = [
        "videos",
        "clips compared",
        *(figures[name]["label"] + unit for name, unit in zip(names, units, strict=True)),
    ]
    rows = []
    for video_set, row in summary.items():
        own = [row["figures"].get(name) for name in names]
        counted = max(figure["counted"] for figure in own if figure is not None)
        cells = ["-" if figure is None else _mean(figure) for figure in own]
        rows.append([_label(video_set), f"{counted}/{row['clips']}", *cells])
    return _table(header, rows)


def _mean(figure: Mapping[str, Any]) -> str:
    # Only identical videos have a figure that is not finite.
    return "identical" if figure["mean"] is None and figure["counted"] else _number(figure["mean"])


def _failure_rows(clips: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            _label(clip["video_set"]),
            clip["clip_id"],
            *(failure[key] for key in ("measure", "trial", "reason", "detail")),
        ]
        for clip in clips
        for failure in clip["failures"]
    ]


def _counts(row: Mapping[str, Any]) -> list[str]:
    facts, figure = row["facts"]["poses"], next(iter(row["figures"].values()))
    return [str(row["clips"]), f"{figure['counted']}/{row['clips']}", f"{facts['failed_trials']}/{facts['trials']}"]


def _label(video_set: str) -> str:
    label = video_set.replace("_", " ")
    return f"{label} (estimator's own error)" if video_set == "ground_truth" else label


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 0.01 else f"{value:.4f}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in line) + " |" for line in lines
    )
