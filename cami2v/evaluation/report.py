"""Third stage: what was measured, as tables that cannot be read without their numbers of clips and failures."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from platform import python_version
from typing import Any

from cami2v.evaluation.folder import EvaluationFolder, read_json, write_json
from cami2v.evaluation.measures.base import Figure, Measure, Row
from cami2v.evaluation.tables import markdown_report

Rows = Mapping[str, Sequence[Row]]
"""What one measure says of the clips, by video set, in clip order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSummary:
    """One figure of one video set. Means that are not finite are None."""

    mean: float | None
    """Over the clips that did not fail; None where there are none."""
    median: float | None
    penalised_mean: float | None
    """Over all clips. A failed clip counts as its measure's penalty (a motionless estimate), or as the set's worst clip
    if that is worse: failing never pays. None where a failed clip has no penalty."""
    counted: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """One video set. Every requested clip is in `clips`."""

    clips: int
    figures: dict[str, FigureSummary]
    """Of the measures that judge this set."""
    facts: dict[str, dict[str, Any]]
    """By measure: its counts and spreads."""
    distances: dict[str, dict[str, Any]]
    """By measure: numbers that belong to the set as a whole."""


def report(folder: EvaluationFolder, measures: Sequence[Measure]) -> str:
    """Write results.json, results.csv and report.md; return the latter's text.

    Raises ValueError where a clip of a video set was not measured: a table over some of the clips is not written.
    """
    if not folder.video_sets():
        raise ValueError(f"{folder.root}: no videos; run the generate and measure stages first")
    rows = {measure.name: read_rows(folder, measure) for measure in measures}
    results = {
        "evaluation": folder.identity(),
        "camera_effect": folder.camera_effect(),
        "measures": {measure.name: _settings(folder, rows[measure.name]) for measure in measures},
        "versions": versions(),
        "figures": {figure.name: asdict(figure) for measure in measures for figure in measure.figures},
        "summary": {name: asdict(summarise(measures, rows, name)) for name in folder.video_sets()},
        "clips": clip_records(folder, measures, rows),
    }
    write_json(folder.root / "results.json", results)
    _write_csv(folder, results)
    text = markdown_report(results)
    (folder.root / "report.md").write_text(text, encoding="utf-8")
    return text


def read_rows(folder: EvaluationFolder, measure: Measure) -> dict[str, list[Row]]:
    """Read what a measure says of every clip of every set it judges. Raises ValueError where a clip is missing."""
    rows, clip_ids = {}, folder.clip_ids()
    for video_set in filter(measure.judges, folder.video_sets()):
        paths = [folder.measurement(measure.name, video_set, clip_id) for clip_id in clip_ids]
        missing = [clip_id for clip_id, path in zip(clip_ids, paths, strict=True) if not path.exists()]
        if missing:
            raise ValueError(
                f"{folder.root}: {len(missing)} of {len(clip_ids)} clips of {video_set} are not measured "
                f"({measure.name}, first {missing[0]}); run the measure stage"
            )
        rows[video_set] = [read_json(path) for path in paths]
    return rows


def summarise(measures: Sequence[Measure], rows: Mapping[str, Rows], video_set: str) -> SetSummary:
    """Summarise what the measures say of one video set; `rows` by measure."""
    judging = [measure for measure in measures if video_set in rows[measure.name]]
    figures: dict[str, FigureSummary] = {}
    for measure in judging:
        own = rows[measure.name][video_set]
        values = [measure.values(row) for row in own]
        penalties = [measure.penalties(row) for row in own]
        for figure in measure.figures:
            if values and figure.name in values[0]:
                figures[figure.name] = summarise_figure(figure, [each[figure.name] for each in values], penalties)
    distances = {measure.name: measure.distances(rows[measure.name]).get(video_set, {}) for measure in judging}
    return SetSummary(
        clips=max((len(rows[measure.name][video_set]) for measure in judging), default=0),
        figures=figures,
        facts={measure.name: facts for measure in judging if (facts := measure.facts(rows[measure.name][video_set]))},
        distances={name: numbers for name, numbers in distances.items() if numbers},
    )


def summarise_figure(
    figure: Figure, values: Sequence[float | None], penalties: Sequence[Mapping[str, float]]
) -> FigureSummary:
    """Summarise a figure over the clips of a set; None is a failed clip, which counts as its penalty at least."""
    counted = [value for value in values if value is not None]
    worst = max if figure.better == "lower" else min
    failed = [penalty.get(figure.name) for value, penalty in zip(values, penalties, strict=True) if value is None]
    counting = [worst([penalty, *counted]) for penalty in failed if penalty is not None]
    return FigureSummary(
        mean=_mean(counted),
        median=_finite(statistics.median(counted)) if counted else None,
        penalised_mean=_mean([*counted, *counting]) if len(counting) == len(failed) else None,
        counted=len(counted),
        failed=len(failed),
    )


def clip_records(
    folder: EvaluationFolder, measures: Sequence[Measure], rows: Mapping[str, Rows]
) -> list[dict[str, Any]]:
    """Return every clip of every set: its figures, its failures, and the measures' rows."""
    records = []
    for video_set in folder.video_sets():
        judging = [measure for measure in measures if video_set in rows[measure.name]]
        for number, clip_id in enumerate(folder.clip_ids()):
            own = {measure.name: rows[measure.name][video_set][number] for measure in judging}
            values = {name: value for measure in judging for name, value in measure.values(own[measure.name]).items()}
            records.append(
                {
                    "video_set": video_set,
                    "clip_id": clip_id,
                    "values": {name: _finite(value) for name, value in values.items()},
                    "failures": [
                        {"measure": measure.name, **asdict(failure)}
                        for measure in judging
                        for failure in measure.failures(own[measure.name])
                    ],
                    "rows": {measure.name: measure.recorded(_without_origin(own[measure.name])) for measure in judging},
                }
            )
    return records


def versions() -> dict[str, str]:
    """Return the versions of what decides a result."""
    packages = ("cami2v", "pycolmap", "torch", "numpy", "av", "decord")
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    found = {name: metadata.version(name) for name in packages if name in installed}
    return {"python": python_version(), **found}


def _mean(values: Sequence[float]) -> float | None:
    return _finite(statistics.fmean(values)) if values else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _without_origin(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in ("measured_with", "clip_id", "video_set")}


def _settings(folder: EvaluationFolder, rows: Rows) -> dict[str, Any]:
    everything = [row["measured_with"] for own in rows.values() for row in own]
    settings = [{key: value for key, value in each.items() if key != "inputs"} for each in everything]
    if any(other != settings[0] for other in settings):
        raise ValueError(f"{folder.root}: measurements were made with different settings; run the measure stage again")
    return settings[0] if settings else {}


def _write_csv(folder: EvaluationFolder, results: Mapping[str, Any]) -> None:
    header = ["video_set", "clip_id", "failures", *results["figures"]]
    with (folder.root / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        for clip in results["clips"]:
            reasons = sorted({failure["reason"] for failure in clip["failures"]})
            writer.writerow(
                {"video_set": clip["video_set"], "clip_id": clip["clip_id"], "failures": "; ".join(reasons)}
                | clip["values"]
            )
