"""Look at clips of a shard set or a folder of posed videos: choose, read several at a time, write the page."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.parallel import default_processes, progress_bar, workers
from data_pipeline.view.clip import ViewOptions, view_clip
from data_pipeline.view.page import write_page
from data_pipeline.view.selection import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewResult:
    """What the page shows."""

    clips: int
    without_frames: int
    findings: int
    bytes: int


def view(
    source: Path, page: Path, selection: Selection, options: ViewOptions, reading: ReadSettings, *, progress: bool
) -> ViewResult:
    """Write the page of the selected clips; what is wrong with a clip is on the page and stops nothing.

    Raises ValueError where `source` is neither a shard set nor such a folder, or has no such clips.
    """
    options.validate()
    jobs = selection.choose(source, reading)
    with workers(min(options.processes or default_processes(), len(jobs))) as run:
        results = run(functools.partial(view_clip, options=options), jobs)
        clips = list(progress_bar(results, what="view", unit="clip", total=len(jobs), show=progress))
    write_page(page, source.resolve().name, clips)
    return ViewResult(
        clips=len(clips),
        without_frames=sum(clip.video is None for clip in clips),
        findings=sum(len(clip.findings) for clip in clips),
        bytes=page.stat().st_size,
    )
