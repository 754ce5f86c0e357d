"""report.html: the tables of an evaluation in one file, and a page per clip beside it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cami2v.evaluation.camera_effect import sentence
from cami2v.evaluation.clip_page import write_clip_page
from cami2v.evaluation.folder import EvaluationFolder
from cami2v.evaluation.measures.base import Measure
from cami2v.evaluation.summary import Rows
from cami2v.evaluation.tables import LAYOUT, Section, facts, label, number, sections
from cami2v.html_report import HtmlReport

PAGES = "report"
_FAILURES = "What could not be measured"
_STYLE = """
body { max-width: 90rem; } .wide { overflow-x: auto; } td a { white-space: nowrap; }
.alarm { border: 2px solid #b3261e; color: #b3261e; padding: 0.6rem 1rem; font-weight: 600; }
td.failed { color: #b3261e; }
"""


def write_report_page(folder: EvaluationFolder, results: Mapping[str, Any], *, clip_pages: bool) -> Path:
    """Write report.html: the published table first, then what it rests on, all other tables, and every clip."""
    page = HtmlReport("Evaluation")
    page.style(_STYLE)
    effect = results["camera_effect"]
    dead = effect is not None and effect["alive"] is False
    said = html.escape(f"Camera effect: {sentence(effect)}.") + (
        " Every number below is that of a model that ignores its trajectories." if dead else ""
    )
    page.markup(f'<p class="{"alarm" if dead else "effect"}">{said}</p>')
    parts = sections(results)
    for each in parts:
        if each.title == LAYOUT:
            _add(page, each)
    page.heading("What the numbers rest on")
    page.items(facts(results))
    for each in parts:
        if each.title != LAYOUT:
            _add(page, each)
    _add_clips(page, results, linked=clip_pages)
    path = folder.root / "report.html"
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial)
    partial.replace(path)
    return path


def write_clip_pages(
    folder: EvaluationFolder, measures: Sequence[Measure], rows: Mapping[str, Rows], results: Mapping[str, Any]
) -> None:
    """Write report/<clip>.html for every clip; pages of clips that are gone are not removed."""
    records: dict[str, dict[str, Any]] = {}
    for record in results["clips"]:
        records.setdefault(record["clip_id"], {})[record["video_set"]] = record
    clip_ids = folder.clip_ids()
    for place, clip_id in enumerate(clip_ids):
        own = {
            video_set: {name: sets[video_set][place] for name, sets in rows.items() if video_set in sets}
            for video_set in records[clip_id]
        }
        before = _address(clip_ids[place - 1]) if place else None
        after = _address(clip_ids[place + 1]) if place + 1 < len(clip_ids) else None
        path = folder.root / PAGES / f"{clip_id}.html"
        write_clip_page(path, folder, measures, records[clip_id], own, (before, after))


def _add(page: HtmlReport, section: Section) -> None:
    if section.title == _FAILURES:
        page.markup(f"<details><summary>{_FAILURES}: {len(section.rows)}</summary>")
    else:
        page.heading(section.title)
    for text in section.text:
        page.paragraph(text)
    if section.header:
        page.markup('<div class="wide">')
        page.table(section.header, section.rows)
        page.markup("</div>")
    if section.title == _FAILURES:
        page.markup("</details>")


def _add_clips(page: HtmlReport, results: Mapping[str, Any], *, linked: bool) -> None:
    """Add a row per clip: the first figure of every measure in every set, and how many of its measurements failed."""
    first: dict[str, str] = {}
    for name, figure in results["figures"].items():
        first.setdefault(figure["measure"], name)
    columns = [
        (video_set, name)
        for video_set, row in results["summary"].items()
        for name in first.values()
        if name in row["figures"]
    ]
    records: dict[str, dict[str, Any]] = {}
    for record in results["clips"]:
        records.setdefault(record["clip_id"], {})[record["video_set"]] = record
    page.heading("Clips")
    head = "".join(f"<th>{html.escape(f'{label(video_set)}: {name}')}</th>" for video_set, name in columns)
    lines = []
    for clip_id, own in records.items():
        text = html.escape(clip_id)
        cells = [
            f'<td><a href="{html.escape(f"{PAGES}/{_address(clip_id)}")}">{text}</a></td>'
            if linked
            else f"<td>{text}</td>"
        ]
        for video_set, name in columns:
            value = own[video_set]["values"].get(name)
            cells.append(
                '<td class="number failed">failed</td>' if value is None else f'<td class="number">{number(value)}</td>'
            )
        failed = sum(len(record["failures"]) for record in own.values())
        lines.append(f'<tr>{"".join(cells)}<td class="number">{failed}</td></tr>')
    page.markup(f'<div class="wide"><table><tr><th>clip</th>{head}<th>failures</th></tr>{"".join(lines)}</table></div>')


def _address(clip_id: str) -> str:
    return f"{quote(clip_id)}.html"
