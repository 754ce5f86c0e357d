"""One self-contained HTML page: text, tables, figures and animated clips, nothing loaded from outside."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { margin-bottom: 0.2rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #d0d7de; }
table { border-collapse: collapse; margin: 0.8rem 0; } th, td { padding: 0.3rem 0.8rem; border: 1px solid #d0d7de; }
th { background: #f6f8fa; text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; vertical-align: bottom; margin: 0.3rem 0.6rem 0.6rem 0; }
figcaption { font-size: 0.8rem; color: #57606a; }
img.pixels { image-rendering: pixelated; } .row { white-space: nowrap; overflow-x: auto; }
"""


POLICY = "default-src 'none'; img-src data: blob:; media-src data: blob:; style-src 'unsafe-inline'"
"""Browsers load nothing from outside, whatever got into the page."""


_CANVAS, _FRAMES, _WORLD = (Path(__file__).with_name(f"html_{name}.js") for name in ("canvas", "frames", "world"))


class HtmlReport:
    """A page built top to bottom; `save` writes one file that needs no other."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = [f"<h1>{html.escape(title)}</h1>"]
        self._styles = [STYLE]
        self._scripts: list[str] = []

    def style(self, css: str) -> None:
        """Add rules to those of every page."""
        self._styles.append(css)

    def script(self, javascript: str) -> None:
        """Run a script when the page is complete."""
        self._scripts.append(javascript)

    def viewers(self) -> None:
        """Let scripts added later draw on canvases, play frames and turn cameras in space (html_*.js)."""
        for each in (_CANVAS, _FRAMES, _WORLD):
            self.script(each.read_text(encoding="utf-8"))

    def markup(self, text: str) -> None:
        """Add HTML in which the caller has escaped whatever comes from outside."""
        self.parts.append(text)

    def data(self, name: str, value: object) -> None:
        """Add a value that scripts read as JSON from the element of this class; no text in it can end the element."""
        content = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        self.parts.append(f'<script type="application/json" class="{html.escape(name)}">{content}</script>')

    def heading(self, text: str) -> None:
        """Start a section."""
        self.parts.append(f"<h2>{html.escape(text)}</h2>")

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def items(self, texts: Sequence[str]) -> None:
        """Add a bulleted list."""
        self.parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>")

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table; the first column is text, the others are aligned as numbers."""
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
        body = "".join(
            "<tr>"
            + "".join(f"<td{' class=number' if i else ''}>{html.escape(cell)}</td>" for i, cell in enumerate(row))
            + "</tr>"
            for row in rows
        )
        self.parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def figure(self, figure: Figure, caption: str = "") -> None:
        """Add a matplotlib figure as inline SVG."""
        self.parts.append(_figure_cell(figure, caption))

    def clips(
        self,
        videos: Mapping[str, UInt8[np.ndarray, "frames height _width 3"]],
        *,
        height: int,
        frames_per_second: float,
        figures: Mapping[str, Figure] = MappingProxyType({}),
    ) -> None:
        """Add a row of looping animations, shown `height` pixels tall, and figures, each over its label."""
        cells = []
        for label, video in videos.items():
            width = round(video.shape[2] * height / video.shape[1])
            data = base64.b64encode(animation(video, frames_per_second=frames_per_second)).decode()
            cells.append(
                f'<figure><img class="pixels" height="{height}" width="{width}" alt="{html.escape(label)}" '
                f'src="data:image/webp;base64,{data}"><figcaption>{html.escape(label)}</figcaption></figure>'
            )
        cells += [_figure_cell(figure, label) for label, figure in figures.items()]
        self.parts.append(f'<div class="row">{"".join(cells)}</div>')

    def save(self, path: Path) -> None:
        """Write the page."""
        path.write_text(self.text(), encoding="utf-8")

    def text(self) -> str:
        """Return the page."""
        scripts = "".join(f"<script>{each}</script>" for each in self._scripts)
        policy = f"{POLICY}; script-src {_hashes(self._scripts)}"
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(self.title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width">'
            f"<style>{''.join(self._styles)}</style></head><body>{''.join(self.parts)}{scripts}</body></html>\n"
        )


def _hashes(scripts: Sequence[str]) -> str:
    """Name the page's own scripts for its policy: no other runs."""
    digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def _figure_cell(figure: Figure, caption: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}<figcaption>{html.escape(caption)}</figcaption></figure>"


def animation(video: UInt8[np.ndarray, "frames height width 3"], *, frames_per_second: float) -> bytes:
    """Encode frames as a looping lossless WebP."""
    images = [Image.fromarray(frame) for frame in video]
    buffer = io.BytesIO()
    duration = round(1000 / frames_per_second)
    images[0].save(
        buffer, format="WEBP", save_all=True, append_images=images[1:], duration=duration, loop=0, lossless=True
    )
    return buffer.getvalue()
