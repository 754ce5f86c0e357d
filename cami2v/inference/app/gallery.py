"""The videos that a visitor made: kept as files that carry their records, shown alone and side by side."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cami2v.inference.grid import labelled_grid
from cami2v.inference.output import write_output
from cami2v.inference.pipeline import Generated
from cami2v.inference.record import Record, frames_sha256
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
    generated: Generated
    seconds: float

    @property
    def short_label(self) -> str:
        """Return what it is called among videos of one model."""
        request = self.generated.request
        return f"#{self.number} {request.trajectory}, seed {request.seed}"

    @property
    def label(self) -> str:
        """Return what it is called."""
        return f"{self.short_label}, {self.made_by}"

    def facts(self) -> list[tuple[str, str]]:
        """Return what it was made with, in a few words."""
        request = self.generated.request
        sampler = request.sampler
        return [
            ("path", request.trajectory),
            ("model", self.made_by),
            ("video", f"{request.frames} frames of {request.width}x{request.height}"),
            ("seed", str(request.seed)),
            ("sampler", f"{sampler.kind}, {sampler.steps} steps, guidance {sampler.guidance_scale:g}"),
            ("took", f"{self.seconds:.1f} s"),
            ("frames", f"sha256 {frames_sha256(self.generated.frames)[:16]}"),
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
        stem = self.served / f"{secrets.token_hex(8)}-{number}"
        path = write_output(
            stem, made.frames, "mp4", frames_per_second=self.frames_per_second, crf=CRF, text=Record.of(made).to_json()
        )
        self.kept.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.kept / path.name)
        return Result(number=number, path=path, made_by=made_by, generated=made, seconds=seconds)

    def side_by_side(self, results: Sequence[Result]) -> Path:
        """Write videos next to each other, labelled. Raises ValueError for fewer than two."""
        if len(results) < 2:
            raise ValueError(f"side by side: {len(results)} chosen; choose two or more results")
        one_model = len({result.made_by for result in results}) == 1
        names = [result.short_label if one_model else f"#{result.number} {result.made_by}" for result in results]
        cells = {("", name): result.generated.frames for name, result in zip(names, results, strict=True)}
        path = self.served / f"{secrets.token_hex(8)}-side-by-side.mp4"
        grid = labelled_grid(cells, [""], names)
        write_mp4(path, grid, self.frames_per_second, crf=CRF)
        return path
