"""A camera path as a page to turn and play, in one file that loads nothing."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from cami2v.geometry.scene import scene_of
from cami2v.html_report import HtmlReport
from cami2v.inference.trajectory_plot import trajectory_figure
from cami2v.trajectories.trajectory import Trajectory
from cami2v.video import encode_mp4

_HERE = Path(__file__).parent
_LEGEND = (
    "Turn the path with the mouse, a finger or the arrow keys; wheel or two fingers bring it closer. Axes are those of "
    "the image's camera: x right, y down, z ahead."
)
_SEEN = "what the camera of the frame sees of the image, moved through its depth; black: what the image does not show"
_PERCENTILES = (2, 98)
_EMBEDDED = """
body { margin: 0; padding: 0; max-width: none; } h1 { display: none; } main { padding: 2px; }
.stage { flex-wrap: nowrap; } .stage > * { flex: 1 1 0; min-width: 0; } .stage > .world { height: 19rem; width: auto; }
.stage > .seen { width: auto !important; } .controls { max-width: none; margin: 0.4rem 0 0; font-size: 0.85rem; }
.controls input { accent-color: #0b5cad; }
.controls button { font: inherit; padding: 0.2rem 0.8rem; background: #fff; border: 1px solid #d0d7de;
  border-radius: 6px; }
@media (max-width: 30rem) { .stage { display: block; } .stage > .world { width: 100%; height: 15rem; } }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenImage:
    """The image in space, and through the path's cameras."""

    points: Float[Tensor, "points 3"]
    """In the image's camera."""
    colours: Float32[Tensor, "points 3"]
    """In [-1, 1]."""
    video: UInt8[np.ndarray, "frames height _width 3"]


def write_scene(
    path: Path,
    trajectory: Trajectory,
    *,
    title: str,
    condition_frame: int,
    facts: Sequence[tuple[str, str]],
    seen: SeenImage | None,
    frames_per_second: float,
) -> None:
    """Write the page so that it appears whole or not at all; the trajectory needs intrinsics."""
    text = scene_page(
        trajectory, title=title, condition_frame=condition_frame, facts=facts, seen=seen,
        frames_per_second=frames_per_second,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def scene_page(
    trajectory: Trajectory,
    *,
    title: str,
    condition_frame: int,
    facts: Sequence[tuple[str, str]],
    seen: SeenImage | None,
    frames_per_second: float,
    embedded: bool = False,
) -> str:
    """Return the page; `embedded` into another one it is without heading, legend and the view from above."""
    assert trajectory.intrinsics_normalized is not None
    scene = scene_of(trajectory.world_to_camera.numpy(), trajectory.intrinsics_normalized.numpy(), condition_frame)
    page = HtmlReport(title)
    page.style((_HERE / "scene_page.css").read_text(encoding="utf-8"))
    if embedded:
        page.style(_EMBEDDED)
    else:
        page.paragraph(_LEGEND)
    video = "" if seen is None else _video(seen)
    page.markup(
        '<main><div class="stage"><canvas class="world" tabindex="0" '
        f'aria-label="camera path, turned with the arrow keys"></canvas>{video}</div>'
        '<div class="controls"><button type="button" class="play">play</button>'
        '<input type="range" min="0" value="0" aria-label="frame"><output></output></div></main>'
    )
    rows = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts)
    page.markup(f'<dl class="facts">{rows}</dl>' if facts else "")
    if not embedded:
        page.figure(trajectory_figure({"path": trajectory.camera_to_world()}, inches=4.0), "seen from above")
    content: dict[str, Any] = {
        "scene": scene.as_json(), "frames": len(trajectory.world_to_camera), "fps": frames_per_second,
        "cloud": None if seen is None else _cloud(seen),
        "video": None if seen is None else _text(encode_mp4(seen.video, fps=frames_per_second, gop=1)),
    }  # fmt: skip
    page.data("trajectory-data", content)
    page.viewers()
    page.script((_HERE / "scene_page.js").read_text(encoding="utf-8"))
    return page.text()


def _video(seen: SeenImage) -> str:
    height, width = seen.video.shape[1:3]
    return (
        f'<figure class="seen" style="width:{width}px">'
        f'<video muted playsinline style="aspect-ratio:{width}/{height}"></video>'
        f"<figcaption>{html.escape(_SEEN)}</figcaption></figure>"
    )


def _cloud(seen: SeenImage) -> dict[str, Any]:
    """Pack the points; a few far ones do not decide what is shown."""
    levels = ((seen.colours.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()
    points = seen.points.cpu().numpy()
    return {
        "points": _text(points.astype("<f4").tobytes()),
        "colours": _text(levels.tobytes()),
        "corners": np.percentile(points, _PERCENTILES, axis=0).tolist(),
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
