"""Pieces of HTML that the page fills in; every text in them is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from cami2v.inference.app.studio import ModelSheet
from cami2v.inference.progress import Progress


def notice(text: str, kind: str = "error") -> str:
    """Say something where it belongs; `kind` is error, done or hint. Nothing for an empty text."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}">{html.escape(text)}</p>'


def progress(state: str, share: float, text: str) -> str:
    """Draw how far a job is; `state` is idle, waiting, running, stopped, failed or done."""
    percent = round(100 * min(1.0, max(0.0, share)))
    return (
        f'<div class="progress {state}" data-state="{state}" role="progressbar" aria-valuenow="{percent}" '
        f'aria-valuemin="0" aria-valuemax="100"><div class="bar" style="width:{percent}%"></div>'
        f'<span class="words">{html.escape(text)}</span></div>'
    )


def step(told: Progress) -> str:
    """Say which step runs and how long it takes."""
    left = told.seconds_left
    wait = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
    return progress("running", told.step / told.steps, f"step {told.step} of {told.steps}, about {wait} left")


def facts(rows: Sequence[tuple[str, str]], remarks: Sequence[str] = ()) -> str:
    """List facts, and remarks below them."""
    listed = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in rows)
    said = "".join(f'<p class="notice hint" role="status">{html.escape(each)}</p>' for each in remarks)
    return f'<dl class="facts">{listed}</dl>{said}'


def header(sheet: ModelSheet | None) -> str:
    """Draw the top of the page."""
    words = "" if sheet is None else _words(sheet)
    return (
        '<header class="top"><div><h1>cami2v</h1><p>One picture, one camera path, one video.</p></div>'
        f'<p class="model" id="model-words">{html.escape(words)}</p></header>'
    )


def _words(sheet: ModelSheet) -> str:
    height, width = sheet.size
    parts = (sheet.name, f"{sheet.frames} frames of {width}\u00d7{height}", f"{sheet.device}, {sheet.precision}")
    return " \u00b7 ".join(parts)
