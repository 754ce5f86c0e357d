"""Numbers over the frames of a clip as inline SVG: a thousand pages need no plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 380, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 26


def curve_plot(title: str, lines: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> str:
    """Return the figure of a line per name; numbers that are not finite break it. `.now` marks the shown frame."""
    finite = [value for values in lines.values() for value in values if math.isfinite(value)]
    top = max(finite, default=0.0) or 1.0
    frames = max((len(values) for values in lines.values()), default=0)
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def place(frame: int, value: float) -> str:
        x = _LEFT + (right - _LEFT) * frame / max(frames - 1, 1)
        return f"{x:.1f},{bottom - (bottom - _TOP) * value / top:.1f}"

    parts = [
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(title)}">',
        f'<path d="M{_LEFT},{_TOP}V{bottom}H{right}" fill="none" stroke="#57606a"/>',
        f'<g font-size="11" fill="#57606a"><text x="{_LEFT - 5}" y="{_TOP + 8}" text-anchor="end">{top:.3g}</text>'
        f'<text x="{_LEFT - 5}" y="{bottom}" text-anchor="end">0</text>'
        f'<text x="{_LEFT}" y="{HEIGHT - 8}">frame 0</text>'
        f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">{frames - 1}</text></g>',
        f'<line class="now" data-from="{_LEFT}" data-to="{right}" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{bottom}" '
        'stroke="#c2500a" stroke-dasharray="3"/>',
    ]
    for name, values in lines.items():
        for start, run in _runs(values):
            points = " ".join(place(start + number, value) for number, value in enumerate(run))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="1.8"/>')
    return f"<figure>{''.join(parts)}</svg><figcaption>{html.escape(title)}</figcaption></figure>"


def _runs(values: Sequence[float]) -> list[tuple[int, list[float]]]:
    runs: list[tuple[int, list[float]]] = []
    for number, value in enumerate(values):
        if not math.isfinite(value):
            continue
        if runs and runs[-1][0] + len(runs[-1][1]) == number:
            runs[-1][1].append(value)
        else:
            runs.append((number, [value]))
    return runs
