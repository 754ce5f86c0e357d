"""The page: every clip with its videos, path, captions, facts and findings, in one file that loads nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from cami2v.html_report import HtmlReport
from data_pipeline.view.clip import ClipView, Matches, ShownVideo

_HERE = Path(__file__).parent
_PANEL_HEIGHT = 250
_LEGEND = (
    "Click a point in a frame: its epipolar line appears in the other frame, solid where the camera sees it. Dots with "
    "a line through them are real matches, found without the cameras. Turn the path with the mouse or a finger; its "
    "axes are those of the first camera: x right, y down, z ahead."
)


def write_page(path: Path, source: str, clips: Sequence[ClipView]) -> None:
    """Write the page so that it appears whole or not at all."""
    page = HtmlReport(f"{source}: posed clips")
    page.style((_HERE / "page.css").read_text(encoding="utf-8"))
    page.paragraph(_LEGEND)
    links = (f'<a href="#clip-{html.escape(clip.clip_id)}">{html.escape(clip.clip_id)}</a>' for clip in clips)
    page.markup(f"<nav>{''.join(links)}</nav>")
    for clip in clips:
        _add(page, clip)
    page.viewers()
    page.script((_HERE / "page.js").read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial)
    partial.replace(path)


def _add(page: HtmlReport, clip: ClipView) -> None:
    name = html.escape(clip.clip_id)
    page.markup(f'<section id="clip-{name}" data-clip="{name}"{" class=playable" if clip.video else ""}>')
    page.heading(clip.clip_id)
    page.markup("".join(f'<p class="caption">{html.escape(text)}</p>' for text in clip.captions))
    page.markup(_findings(clip))
    if clip.video is None:
        page.paragraph("Its frames cannot be shown.")
    else:
        page.markup(_stage(clip.video))
        _add_data(page, clip.video)
    facts = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in clip.facts)
    page.markup(f'<dl class="facts">{facts}</dl></section>')


def _findings(clip: ClipView) -> str:
    items = []
    for each in clip.findings:
        frame = "" if each.frame is None else f" at frame {each.frame}"
        text = f"{each.severity}: {each.check}{frame}: {each.found}. Allowed: {each.allowed}. Remedy: {each.remedy}."
        items.append(f'<li class="{html.escape(each.severity)}">{html.escape(text)}</li>')
    return f'<ul class="findings">{"".join(items)}</ul>' if items else ""


def _stage(video: ShownVideo) -> str:
    width = round(_PANEL_HEIGHT * video.display_aspect)
    panel = (
        '<figure class="panel {side}"><div class="picture" style="width:{width}px;height:{height}px">'
        "<video muted playsinline></video><canvas></canvas></div>"
        '<input type="range" min="0" value="0" aria-label="frame"><figcaption></figcaption></figure>'
    )
    parts = [panel.format(side=side, width=width, height=_PANEL_HEIGHT) for side in ("first", "second")]
    if video.scene is not None:
        parts.append(
            '<canvas class="world" tabindex="0" aria-label="camera path, turned with the arrow keys"></canvas>'
        )
    buttons = [("play", "play"), ("clear", "clear points")]
    buttons += [("matches", "show matches")] if video.matches else []
    tools = "".join(f'<button type="button" class="{name}">{label}</button>' for name, label in buttons)
    hint = f'<p class="hint">{html.escape(_said(video.matches))}</p>' if video.matches else ""
    return f'<div class="stage">{"".join(parts)}</div><div class="tools">{tools}</div>{hint}'


def _said(matches: Matches) -> str:
    first, second = matches.frames
    if not matches.found:
        return "The first compared pair of frames has no reliable matches."
    away = (
        ""
        if matches.median_pixels is None
        else f", half of them within {matches.median_pixels:.2g} pixels of their lines"
    )
    return (
        f"{matches.found} matches between the shown frames {first} and {second}{away}; {len(matches.points)} are drawn."
    )


def _add_data(page: HtmlReport, video: ShownVideo) -> None:
    page.data(
        "clip-data",
        {
            "video": base64.b64encode(video.mp4).decode(),
            "fps": video.frames_per_second,
            "frames": video.frame_numbers,
            "scene": None if video.scene is None else video.scene.as_json(),
            "matches": None if video.matches is None or not video.matches.found else asdict(video.matches),
        },
    )
