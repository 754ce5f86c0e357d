"""What stands beside a layout that lacks it, keyed by clip id: captions, metric scales, sources."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.metric_scale.side_file import EstimatedScale
from data_pipeline.realestate10k.layout import read_captions, read_metric_scales


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFiles:
    """Contents of the side files of one source folder."""

    captions: dict[str, tuple[str, ...]]
    metric_scales: dict[str, Any]
    """Of metric_scale.json, and estimates (EstimatedScale) for clips it does not name."""
    sources: dict[str, str]

    def metric_scale(self, clip_id: str, own: float | None) -> Any:
        """Return metric_scale.json's word, else the layout's own, else an estimate; None where there is none."""
        beside = self.metric_scales.get(clip_id)
        return own if own is not None and (beside is None or isinstance(beside, EstimatedScale)) else beside


def read_side_files(folder: Path) -> SideFiles:
    """Read the side files that are there; raises ValueError for one that is malformed."""
    return SideFiles(
        captions=read_captions(folder), metric_scales=read_metric_scales(folder), sources=_read_sources(folder)
    )


def known_source(clip_id: str, stated: str | None, each_clip_is_a_source: bool, where: str) -> str:
    """Return the source id that was stated, or the clip's own where that was allowed; raises BadClip otherwise."""
    if stated:
        return stated
    if each_clip_is_a_source:
        return clip_id
    raise BadClip(
        Reason.SOURCE_UNKNOWN,
        f"{where}: does not say which video clip {clip_id} was cut from, and splits must not share one; add "
        f'sources.json {{"{clip_id}": "<video id>"}} or set pack.reading.each_clip_is_a_source=true',
    )


def _read_sources(folder: Path) -> dict[str, str]:
    path = folder / "sources.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(value, str) and value for value in content.values()):
        raise ValueError(f'{path}: expected {{"<clip>": "<id of its source video>"}}')
    return content
