"""Which training timesteps a sampler visits."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Int64

StepSpacing = Literal[
    "uniform", "uniform_trailing", "quad", "quad_trailing", "published_uniform", "published_uniform_trailing"
]


def sampling_steps(spacing: StepSpacing, steps: int, timesteps: int) -> list[int]:
    """List the visited timesteps in ascending order (sampling runs through them in reverse).

    `uniform` starts at timestep 1, `uniform_trailing` ends at the last timestep (arXiv 2305.08891, table 2), `quad`
    is dense at low noise, where neighbours may repeat for many steps; so is `quad_trailing`, which ends at the last
    timestep, for multistep solvers (docs/sample.md). These four return exactly `steps` entries. The
    `published_` spacings reproduce the public CamI2V code, which returns more than asked for where `steps` does not
    divide `timesteps`.

    Raises:
        ValueError: `steps` outside 1..timesteps, or a published list that leaves the schedule.
    """
    if not 1 <= steps <= timesteps:
        raise ValueError(f"sampler.steps is {steps}; choose 1 to {timesteps}, the schedule's number of timesteps")
    if spacing == "quad_trailing":
        fractions = np.arange(1, steps + 1) / steps
        return [max(1, round(step)) for step in (timesteps - 1) * fractions**2]
    visited = published_steps(spacing, steps, timesteps)
    if spacing in ("uniform", "uniform_trailing"):
        visited = visited[-steps:] if spacing == "uniform_trailing" else visited[:steps]
        # Only steps == timesteps leaves no room for the offset by one.
        visited -= max(0, int(visited[-1]) - (timesteps - 1))
    elif visited[0] < 0 or visited[-1] >= timesteps:
        raise ValueError(
            f"sampler.spacing {spacing!r} with sampler.steps={steps} visits timesteps {visited[0]}..{visited[-1]}, "
            f"outside 0..{timesteps - 1}; use {spacing.removeprefix('published_')!r}"
        )
    return [int(step) for step in visited]


def published_steps(spacing: StepSpacing, steps: int, timesteps: int) -> Int64[np.ndarray, " visited"]:
    """List the timesteps of the public CamI2V code: not always `steps` of them, nor always inside the schedule."""
    if spacing == "quad":
        return (np.linspace(0, np.sqrt(timesteps * 0.8), steps) ** 2).astype(np.int64) + 1
    if spacing.endswith("uniform"):
        return np.arange(0, timesteps, timesteps // steps) + 1
    return np.flip(np.round(np.arange(timesteps, 0, -timesteps / steps)).astype(np.int64)) - 1
