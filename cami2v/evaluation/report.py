"""Third stage: what was measured, as tables that cannot be read without their numbers of clips and failures."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cami2v.evaluation.bootstrap import Bootstrap
from cami2v.evaluation.folder import STAGES, EvaluationFolder, read_json, write_json
from cami2v.evaluation.machine import hardware, versions
from cami2v.evaluation.markdown import markdown_report
from cami2v.evaluation.measures.base import Measure, Row
from cami2v.evaluation.published import COLUMNS, published_procedure
from cami2v.evaluation.report_page import write_clip_pages, write_report_page
from cami2v.evaluation.stopwatch import SECONDS
from cami2v.evaluation.summary import Rows, finite, summarise
from cami2v.evaluation.wandb_tables import WandbSettings, log_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What the tables hold beyond the figures."""

    bootstrap: Bootstrap | None
    """None: no intervals."""
    compatibility: Literal["cami2v"] | None
    """`cami2v`: also what the published procedure makes of the same estimates."""
    clip_pages: bool
    """A page per clip beside report.html, with its videos."""
    wandb: WandbSettings | None
    """Where the tables are logged; None: nowhere."""

    def check(self, measures: Sequence[Measure]) -> None:
        """Raise ValueError where these measures cannot give such a report."""
        if self.compatibility:
            _with_published_figures(measures)


PLAIN = ReportOptions(bootstrap=None, compatibility=None, clip_pages=False, wandb=None)


def report(folder: EvaluationFolder, measures: Sequence[Measure], options: ReportOptions = PLAIN) -> str:
    """Write results.json, results.csv, results_trials.csv, report.md and report.html; return the Markdown.

    Raises ValueError where a clip of a video set was not measured: a table over some of the clips is not written.
    """
    if not folder.video_sets():
        raise ValueError(f"{folder.root}: no videos; run the generate and measure stages first")
    stored = {measure.name: stored_rows(folder, measure) for measure in measures}
    settings = {name: _settings(folder, sets) for name, sets in stored.items()}
    distances = {measure.name: measure.distances(stored[measure.name]) for measure in measures}
    rows = {
        measure.name: {
            name: [measure.recorded(_without_origin(row)) for row in own] for name, own in stored[measure.name].items()
        }
        for measure in measures
    }
    summary = {name: summarise(measures, rows, name, distances, options.bootstrap) for name in folder.video_sets()}
    compatibility = {}
    if options.compatibility:
        measure = _with_published_figures(measures)
        for name, own in rows[measure.name].items():
            attempts = [measure.attempts(row) for row in own]
            compatibility[name] = published_procedure(folder.clip_ids(), attempts, summary[name])
    results: dict[str, Any] = {
        "evaluation": folder.identity(),
        "camera_effect": folder.camera_effect(),
        "measures": settings,
        "versions": versions(),
        "hardware": hardware(),
        "machines": {stage: folder.machines(stage) for stage in STAGES},
        "bootstrap": asdict(options.bootstrap) if options.bootstrap else None,
        "figures": {
            figure.name: {**asdict(figure), "measure": measure.name}
            for measure in measures
            for figure in measure.figures
        },
        "summary": {name: asdict(each) for name, each in summary.items()},
        "compatibility": compatibility,
        "clips": clip_records(folder, measures, rows),
    }
    write_json(folder.root / "results.json", results)
    _write_csv(
        folder.root / "results.csv", ["video_set", "clip_id", "failures", *results["figures"]], _clip_lines(results)
    )
    figures = [
        *dict.fromkeys(name for clip in results["clips"] for each in clip["attempts"] for name in each["values"])
    ]
    header = ["video_set", "clip_id", "measure", "trial", "failure", "detail", *figures]
    _write_csv(folder.root / "results_trials.csv", header, _trial_lines(results))
    text = markdown_report(results)
    (folder.root / "report.md").write_text(text, encoding="utf-8")
    if options.clip_pages:
        write_clip_pages(folder, measures, rows, results)
    write_report_page(folder, results, clip_pages=options.clip_pages)
    if options.wandb:
        log_tables(results, folder.root, options.wandb)
    return text


class StoredRows:
    """The rows of a set in clip order, read from disk each time that somebody goes through them, and kept by nobody."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __iter__(self) -> Iterator[Row]:
        """Read row after row."""
        return map(read_json, self.paths)


def stored_rows(folder: EvaluationFolder, measure: Measure) -> dict[str, StoredRows]:
    """Find what a measure says of every clip of every set it judges. Raises ValueError where a clip is missing."""
    rows, clip_ids = {}, folder.clip_ids()
    for video_set in filter(measure.judges, folder.video_sets()):
        paths = [folder.measurement(measure.name, video_set, clip_id) for clip_id in clip_ids]
        missing = [clip_id for clip_id, path in zip(clip_ids, paths, strict=True) if not path.exists()]
        if missing:
            raise ValueError(
                f"{folder.root}: {len(missing)} of {len(clip_ids)} clips of {video_set} are not measured "
                f"({measure.name}, first {missing[0]}); run the measure stage"
            )
        rows[video_set] = StoredRows(paths)
    return rows


def clip_records(
    folder: EvaluationFolder, measures: Sequence[Measure], rows: Mapping[str, Rows]
) -> list[dict[str, Any]]:
    """Return every clip of every set: figures, failures and what they count as, attempts, the measures' rows."""
    records = []
    for video_set in folder.video_sets():
        judging = [measure for measure in measures if video_set in rows[measure.name]]
        for number, clip_id in enumerate(folder.clip_ids()):
            own = {measure.name: rows[measure.name][video_set][number] for measure in judging}
            values = {name: value for measure in judging for name, value in measure.values(own[measure.name]).items()}
            penalties = {
                name: each for measure in judging for name, each in measure.penalties(own[measure.name]).items()
            }
            records.append(
                {
                    "video_set": video_set,
                    "clip_id": clip_id,
                    "values": {name: finite(value) for name, value in values.items()},
                    "penalties": {
                        name: penalties[name] for name, value in values.items() if value is None and name in penalties
                    },
                    "failures": [
                        {"measure": measure.name, **asdict(failure)}
                        for measure in judging
                        for failure in measure.failures(own[measure.name])
                    ],
                    "attempts": [
                        {"measure": measure.name, **_without_path(asdict(attempt))}
                        for measure in judging
                        for attempt in measure.attempts(own[measure.name])
                    ],
                    "rows": {measure.name: own[measure.name] for measure in judging},
                }
            )
    return records


def _with_published_figures(measures: Sequence[Measure]) -> Measure:
    for measure in measures:
        if set(COLUMNS) <= {figure.name for figure in measure.figures}:
            return measure
    raise ValueError(
        "evaluation.compatibility=cami2v: no measure estimates camera paths; leave evaluation.measures.poses on"
    )


def _without_origin(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in ("measured_with", "clip_id", "video_set", SECONDS)}


def _without_path(attempt: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attempt.items() if key != "world_to_camera"}


def _settings(folder: EvaluationFolder, rows: Mapping[str, Iterable[Row]]) -> dict[str, Any]:
    """Return what all rows of a measure were made with. Raises ValueError where that is not one thing."""
    settings: dict[str, Any] | None = None
    for row in itertools.chain.from_iterable(rows.values()):
        own = {key: value for key, value in row["measured_with"].items() if key != "inputs"}
        if settings is not None and own != settings:
            raise ValueError(
                f"{folder.root}: measurements were made with different settings; run the measure stage again"
            )
        settings = own
    return settings or {}


def _clip_lines(results: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for clip in results["clips"]:
        reasons = sorted({failure["reason"] for failure in clip["failures"]})
        origin = {"video_set": clip["video_set"], "clip_id": clip["clip_id"], "failures": "; ".join(reasons)}
        yield origin | clip["values"]


def _trial_lines(results: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    for clip in results["clips"]:
        for attempt in clip["attempts"]:
            origin = {"video_set": clip["video_set"], "clip_id": clip["clip_id"]}
            yield origin | {key: value for key, value in attempt.items() if key != "values"} | attempt["values"]


def _write_csv(path: Path, header: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
