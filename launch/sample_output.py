"""What `cami2v sample` writes: videos, what they are compared with, and grids of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cami2v.geometry.cameras import relative_poses
from cami2v.inference.clip_video import enlarged, side_by_side, to_frames
from cami2v.inference.grid import labelled_grid
from cami2v.inference.output import write_output
from cami2v.inference.pipeline import Generated, Pipeline
from cami2v.inference.record import Record
from cami2v.inference.request import Request
from cami2v.inference.trajectory_plot import trajectory_figure, trajectory_image
from cami2v.trajectories.choose import name_of
from cami2v.video import write_mp4
from launch.sample_settings import SampleSettings

logger = logging.getLogger(__name__)

Frames = UInt8[np.ndarray, "frames height width 3"]

PLOT_INCHES = 4.0
PLOT_DPI = 150


def write_video(
    chosen: SampleSettings, pipeline: Pipeline, made: Generated, name: str, truth: Frames | None = None
) -> Path:
    """Write one video in every format, and beside its image or `truth` and path; return the first format's path."""
    stem, text = chosen.output / name, Record.of(made).to_json()
    rate = chosen.frames_per_second
    paths = [
        write_output(stem, made.frames, kind, frames_per_second=rate, crf=chosen.crf, text=text)
        for kind in chosen.formats
    ]
    if chosen.side_by_side:
        _write_side_by_side(chosen, pipeline, made, name, truth)
    logger.info("video: %s%s", paths[0], "  (and -side-by-side.mp4, -trajectory.png)" if chosen.side_by_side else "")
    return paths[0]


def write_grid(chosen: SampleSettings, name: str, cells: Mapping[tuple[str, str], Frames]) -> None:
    """Write videos by (row, column) as one."""
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*cells, strict=True))
    grid = labelled_grid(cells, rows, columns)
    target = chosen.output / f"{name}-grid.mp4"
    write_mp4(target, grid, chosen.frames_per_second, crf=chosen.crf)
    logger.info("grid: %s (%d x %d)", target, len(rows), len(columns))


def label(request: Request) -> str:
    """Return a short name of a video's path."""
    return name_of(request.trajectory)


def _write_side_by_side(
    chosen: SampleSettings, pipeline: Pipeline, made: Generated, name: str, truth: Frames | None
) -> None:
    poses = made.request.path().world_to_camera
    start = pipeline.clip(made.request, made.picture)
    path = {"asked for": relative_poses(poses[None], start.seeds.new_zeros(1))[0]}
    shown = [to_frames(start.video[0]) if truth is None else truth, made.preview, made.frames]
    panels = [enlarged(video) for video in shown if video is not None]
    plot = trajectory_image(path, size=panels[0].shape[1])
    panels.append(np.repeat(plot[None], len(made.frames), axis=0))
    write_mp4(
        chosen.output / f"{name}-side-by-side.mp4", side_by_side(panels), chosen.frames_per_second, crf=chosen.crf
    )
    figure = trajectory_figure(path, inches=PLOT_INCHES, title=label(made.request))
    figure.savefig(chosen.output / f"{name}-trajectory.png", dpi=PLOT_DPI)
