"""One clip's page: its videos side by side, requested and estimated paths, errors over frames, matches with lines."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from cami2v.evaluation.camera_metrics import relative_to_first, translation_extent
from cami2v.evaluation.curve_plot import curve_plot
from cami2v.evaluation.folder import EvaluationFolder, RequestedCameras
from cami2v.evaluation.measures.base import Attempt, Curve, Measure, Row, ShownMatches
from cami2v.evaluation.tables import number
from cami2v.geometry.scene import Scene, scene_of
from cami2v.html_report import HtmlReport
from cami2v.video import probe

_HERE = Path(__file__).parent
_HEIGHT = 240
_REQUESTED = "#1b1f24"
_COLOURS = ("#1a7f37", "#0b6bcb", "#8250df", "#bf3989", "#9a6700", "#0a7ea4")
_LEGEND = (
    "Paths are in the axes of the first camera (x right, y down, z ahead); estimated ones, a line per trial, have the "
    "requested path's extent. Turn them with the mouse, a finger or the arrow keys. Curves are medians over trials."
)


@dataclass(kw_only=True)
class _Shown:
    """What is on the page of one video set."""

    colour: str
    video: bytes | None = None
    fps: float = 0.0
    width: int = 0
    missing: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    matches: ShownMatches | None = None


def write_clip_page(
    path: Path,
    folder: EvaluationFolder,
    measures: Sequence[Measure],
    records: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Mapping[str, Row]],
    neighbours: tuple[str | None, str | None],
) -> None:
    """Write the page of the clip of `records` (by video set); `rows` are the measures' by set and measure.

    `neighbours` are the addresses of the pages before and after. The page appears whole or not at all.
    """
    clip_id = next(iter(records.values()))["clip_id"]
    cameras = folder.read_cameras(clip_id)
    size = np.array([cameras.width, cameras.height, cameras.width, cameras.height], dtype=np.float64)
    scene = scene_of(cameras.world_to_camera, cameras.intrinsics_pixels / size)
    shown = {
        name: _shown(folder, measures, name, clip_id, rows[name], cameras, _COLOURS[number % len(_COLOURS)])
        for number, name in enumerate(records)
    }
    page = HtmlReport(clip_id)
    page.style((_HERE / "clip_page.css").read_text(encoding="utf-8"))
    page.markup(_navigation(neighbours))
    page.markup("<main>")
    page.markup(_stage(shown))
    page.paragraph(_LEGEND)
    page.markup(f'<div class="curves">{"".join(_curves(shown))}</div>')
    _add_matches(page, shown)
    page.markup("</main>")
    _add_figures(page, records)
    page.data("clip-data", _data(shown, scene, cameras))
    page.viewers()
    page.script((_HERE / "clip_page.js").read_text(encoding="utf-8"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    page.save(partial)
    partial.replace(path)


def _shown(
    folder: EvaluationFolder,
    measures: Sequence[Measure],
    video_set: str,
    clip_id: str,
    rows: Mapping[str, Row],
    cameras: RequestedCameras,
    colour: str,
) -> _Shown:
    shown, video = _Shown(colour=colour), folder.video(video_set, clip_id)
    try:
        if video.exists():
            info = probe(video)
            shown.video, shown.fps = video.read_bytes(), info.frames_per_second
            shown.width = round(_HEIGHT * info.width / info.height)
        else:
            shown.missing = "no video"
    except ValueError:
        shown.missing = "not a readable video"
    for measure in measures:
        if measure.name in rows:
            row = rows[measure.name]
            shown.attempts += measure.attempts(row)
            shown.curves += measure.curves(row, cameras)
            shown.matches = shown.matches or measure.matches(row)
    return shown


def _title(video_set: str) -> str:
    return video_set.replace("_", " ")


def _navigation(neighbours: tuple[str | None, str | None]) -> str:
    links = [("../report.html", "all clips"), (neighbours[0], "previous"), (neighbours[1], "next")]
    return "<nav>" + "".join(f'<a href="{html.escape(to)}">{text}</a>' for to, text in links if to) + "</nav>"


def _stage(shown: Mapping[str, _Shown]) -> str:
    figures = "".join(
        f"<figure>{_picture(name, each)}<figcaption>{html.escape(_title(name))}</figcaption></figure>"
        for name, each in shown.items()
    )
    keys = {"requested path": _REQUESTED, **{_title(name): each.colour for name, each in shown.items()}}
    legend = "".join(
        f'<span><i style="background:{colour}"></i>{html.escape(key)}</span>' for key, colour in keys.items()
    )
    return (
        f'<div class="stage"><div class="stage videos">{figures}</div><canvas class="world" tabindex="0" '
        'aria-label="camera paths, turned with the arrow keys"></canvas></div>'
        '<div class="controls"><button type="button" class="play">play</button>'
        '<input type="range" min="0" value="0" aria-label="frame"><output></output></div>'
        f'<p class="legend">{legend}</p>'
    )


def _picture(name: str, shown: _Shown, attributes: str = "") -> str:
    inside = f"<p>{html.escape(shown.missing)}</p>"
    if shown.video is not None:
        inside = f'<video muted playsinline data-set="{html.escape(name)}"></video>{attributes}'
    return f'<div class="picture" style="width:{shown.width or _HEIGHT}px;height:{_HEIGHT}px">{inside}</div>'


def _curves(shown: Mapping[str, _Shown]) -> list[str]:
    lines: dict[str, dict[str, list[float]]] = {}
    for name, each in shown.items():
        for curve in each.curves:
            title = curve.label + (f" ({curve.unit})" if curve.unit else "")
            lines.setdefault(title, {})[name] = curve.values
    colours = {name: each.colour for name, each in shown.items()}
    return [curve_plot(title, own, colours) for title, own in lines.items()]


def _add_matches(page: HtmlReport, shown: Mapping[str, _Shown]) -> None:
    drawn = {name: each for name, each in shown.items() if each.matches is not None and each.video is not None}
    if not drawn:
        return
    page.heading("Matches and the requested cameras' epipolar lines")
    page.paragraph(
        "Points found in both frames without any camera. Under the requested cameras, each point of the right frame "
        "has to lie on the line of its colour."
    )
    for name, each in drawn.items():
        assert each.matches is not None
        figures = "".join(
            f'<figure data-set="{html.escape(name)}" data-side="{side}">{_picture(name, each, "<canvas></canvas>")}'
            f"<figcaption>{html.escape(_title(name))}, frame {frame}</figcaption></figure>"
            for side, frame in enumerate(each.matches.frames)
        )
        page.markup(f'<div class="stage matches">{figures}</div>')


def _add_figures(page: HtmlReport, records: Mapping[str, Mapping[str, Any]]) -> None:
    page.heading("Figures")
    names = list(dict.fromkeys(name for record in records.values() for name in record["values"]))
    rows = [
        [name, *(number(record["values"][name]) if name in record["values"] else "" for record in records.values())]
        for name in names
    ]
    page.table(["figure", *map(_title, records)], rows)
    failures = [
        [_title(name), *(each[key] for key in ("measure", "trial", "reason", "detail"))]
        for name, record in records.items()
        for each in record["failures"]
    ]
    if failures:
        page.heading("What could not be measured")
        page.table(["videos", "measure", "trial", "reason", "detail"], failures)


def _data(shown: Mapping[str, _Shown], scene: Scene, cameras: RequestedCameras) -> dict[str, Any]:
    extent = float(np.linalg.norm(scene.centres, axis=1).max())
    paths = [
        {"colour": each.colour, "centres": _centres(attempt.world_to_camera, extent).round(6).tolist()}
        for each in shown.values()
        for attempt in each.attempts
        if attempt.world_to_camera is not None
    ]
    playable = {name: each for name, each in shown.items() if each.video is not None}
    return {
        "frames": len(cameras.world_to_camera),
        "scene": scene.as_json(),
        "paths": paths,
        "videos": {name: base64.b64encode(each.video or b"").decode() for name, each in playable.items()},
        "fps": {name: each.fps for name, each in playable.items()},
        "matches": {name: _lines(each.matches, scene) for name, each in playable.items() if each.matches is not None},
    }


def _centres(world_to_camera: Any, extent: float) -> Float64[np.ndarray, "frames 3"]:
    """Return where an estimated path goes, in the requested path's unit."""
    relative = relative_to_first(torch.tensor(world_to_camera, dtype=torch.float64))
    own = float(translation_extent(relative))
    return relative[:, :3, 3].numpy() * (extent / own if own > 0 and extent > 0 else 1.0)


def _lines(matches: ShownMatches, scene: Scene) -> dict[str, Any]:
    lines = scene.lines(*matches.frames, np.array(matches.points, dtype=np.float64))
    lines = lines / np.maximum(np.linalg.norm(lines[:, :2], axis=1, keepdims=True), 1e-12)
    return {
        "frames": list(matches.frames),
        "points": matches.points,
        "partners": matches.partners,
        "lines": lines.round(6).tolist(),
    }
