"""Pages as a test reads them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.view.clip import ViewOptions
from data_pipeline.view.run import ViewResult, view
from data_pipeline.view.selection import Selection
from tests.data_pipeline.raw_folders import READING

OPTIONS = ViewOptions(short_side=240, crf=4, max_frames=64, compare=False, min_frames=2, processes=1)
SELECTION = Selection(clips=None, split=None, count=12, seed=0)


def write(source: Path, page: Path, *, compare: bool = False, max_frames: int = 64, **chosen: Any) -> ViewResult:
    options = replace(OPTIONS, compare=compare, max_frames=max_frames)
    return view(source, page, replace(SELECTION, **chosen), options, READING, progress=False)


def sections(page: Path) -> dict[str, str]:
    """The HTML of each clip."""
    found = re.findall(r'<section id="clip-[^"]*" data-clip="([^"]*)".*?</section>', page.read_text(), re.DOTALL)
    parts = re.findall(r"<section .*?</section>", page.read_text(), re.DOTALL)
    return dict(zip(found, parts, strict=True))


def data_of(section: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" class="clip-data">(.*?)</script>', section, re.DOTALL)
    assert match is not None
    data = json.loads(match[1])
    data["video"] = base64.b64decode(data["video"])
    return data


def line(scene: dict[str, Any], first: int, second: int, u: float, v: float) -> np.ndarray:
    """The epipolar line from a page's numbers alone."""
    project = np.array(scene["project"][second])
    start = project @ [*scene["centres"][first], 1]
    return np.cross(start, project[:, :3] @ (np.array(scene["unproject"][first]) @ [u, v, 1]))
