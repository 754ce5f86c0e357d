"""Settings of `cami2v evaluate` that its stages share, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cami2v.camera_control.interventions import Trajectory
from data_pipeline.evaluation_manifest import EvaluationManifest, read_evaluation_manifest
from launch.published_metadata import SUFFIXES

Stage = Literal["generate", "measure", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The keys of `evaluation`. `estimator` and `trials` are there for the measures to refer to."""

    estimator: Any
    measures: Mapping[str, Any]
    metric_scale: Mapping[str, Any]
    """Of the measure that `depth` adds."""
    clips: int | None
    trials: int
    processes: int
    interventions: bool
    crf: int
    bootstrap: Mapping[str, Any]
    compatibility: Literal["cami2v"] | None
    clip_pages: bool
    wandb: Mapping[str, Any]
    stages: Sequence[Stage]
    task: int | None
    tasks: int | None
    manifest: str | None

    def validate(self) -> None:
        """Raise ValueError for a number out of range."""
        for name, value in (("clips", self.clips), ("processes", self.processes)):
            if value is not None and value < 1:
                raise ValueError(f"evaluation.{name}={value}: must be at least 1")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"evaluation.crf={self.crf}: must be between 0 (lossless) and 51")

    @property
    def is_published(self) -> bool:
        """Whether the manifest is published metadata, which says clips and captions but no frames."""
        return self.manifest is not None and Path(self.manifest).suffix in SUFFIXES

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """Return the trajectories to generate under."""
        return ("right", "stationary", "shuffled") if self.interventions else ("right",)


def given_manifest(evaluation: EvaluationSettings) -> EvaluationManifest | None:
    """Read evaluation.manifest, if one is given. Raises ValueError where part of it would be taken."""
    if evaluation.manifest is None or evaluation.is_published:
        return None
    if evaluation.clips is not None:
        raise ValueError(
            f"evaluation.clips={evaluation.clips}: evaluation.manifest={evaluation.manifest} says which clips; some of "
            "them are another evaluation, so leave one of the two out"
        )
    return read_evaluation_manifest(Path(evaluation.manifest).expanduser(), "evaluation.manifest")
