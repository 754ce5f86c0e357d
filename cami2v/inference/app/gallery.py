"""The videos that a visitor made: kept as files that carry their records, shown alone and side by side."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cami2v.inference.grid import labelled_grid
from cami2v.inference.output import write_output
from cami2v.inference.pipeline import Generated
from cami2v.inference.record import Record
from cami2v.inference.request import Request
from cami2v.video import read_frames
from cami2v.video_encoding import write_mp4

CRF = 16
"""As `cami2v sample`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A video of the gallery."""

    number: int
    path: Path
    made_by: str
    """The model's name on the page."""
    request: Request
    frames_sha256: str
    """Of the frames before compression."""
    seconds: float

    @property
    def short_label(self) -> str:
        """Return what it is called among videos of one model."""
        return f"#{self.number} {self.request.trajectory}, seed {self.request.seed}"

    @property
    def label(self) -> str:
        """Return what it is called."""
        return f"{self.short_label}, {self.made_by}"

    def facts(self) -> list[tuple[str, str]]:
        """Return what it was made with, in a few words."""
        request = self.request
        sampler = request.sampler
        return [
            ("path", request.trajectory),
            ("model", self.made_by),
            ("video", f"{request.frames} frames of {request.width}x{request.height}"),
            ("seed", str(request.seed)),
            ("sampler", f"{sampler.kind}, {sampler.steps} steps, guidance {sampler.guidance_scale:g}"),
            ("took", f"{self.seconds:.1f} s"),
            ("frames", f"sha256 {self.frames_sha256[:16]}"),
        ]


class Gallery:
    """Writes videos to a folder that the page is served from, and keeps a copy of each in another, which it is not."""

    def __init__(self, *, served: Path, kept: Path, frames_per_second: float) -> None:
        self.served = served
        self.kept = kept
        self.frames_per_second = frames_per_second

    def add(self, made: Generated, *, number: int, made_by: str, seconds: float) -> Result:
        """Write a video with its record, as `cami2v sample` does."""
        # Nobody guesses the name, and no part of it comes from a visitor.
        stem = self.served / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(8)}"
        record = Record.of(made)
        path = write_output(
            stem, made.frames, "mp4", frames_per_second=self.frames_per_second, crf=CRF, text=record.to_json()
        )
        self.kept.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.kept / path.name)
        # Not the frames themselves: pages stay open for days.
        return Result(
            number=number, path=path, made_by=made_by, request=made.request, frames_sha256=record.frames_sha256,
            seconds=seconds,
        )  # fmt: skip

    def side_by_side(self, results: Sequence[Result]) -> Path:
        """Write videos next to each other, labelled. Raises ValueError for fewer than two."""
        if len(results) < 2:
            raise ValueError(f"side by side: {len(results)} chosen; choose two or more results")
        one_model = len({result.made_by for result in results}) == 1
        names = [result.short_label if one_model else f"#{result.number} {result.made_by}" for result in results]
        cells = {("", name): read_frames(result.path) for name, result in zip(names, results, strict=True)}
        path = self.served / f"{secrets.token_hex(8)}-side-by-side.mp4"
        grid = labelled_grid(cells, [""], names)
        write_mp4(path, grid, self.frames_per_second, crf=CRF)
        return path
