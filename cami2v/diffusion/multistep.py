"""Multistep solvers of the sampling ODE, in fewer steps than DDIM: DPM-Solver++ and UniPC, through diffusers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from jaxtyping import Float, Float64
from torch import Tensor

from cami2v.diffusion.edits import Step, StepEdit
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.prediction import Prediction, predict_clean
from cami2v.diffusion.sampler import Course, Sampler, batch_of
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.diffusion.steps import StepSpacing, sampling_steps

PURE_NOISE_RATIO = 4096.0
"""Stands for the infinite noise-to-signal ratio of pure noise (zero terminal SNR), as in diffusers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SolverPath:
    """The levels a solver goes through, highest noise first, and the one at which it ends.

    With dynamic rescale the latents are signal * scale * clean + noise: no longer of constant variance. Divided by
    `size` they are, which is the form that solvers know; `ratio` describes it completely.
    """

    timesteps: tuple[int, ...]
    ratio: Float64[Tensor, " levels"]
    """Noise over signal; one more than `timesteps`."""
    size: Float64[Tensor, " levels"]


def solver_path(schedule: NoiseSchedule, spacing: StepSpacing, steps: int) -> SolverPath:
    """Tabulate the visited levels. Like DDIM's, the path ends at the schedule's first noise level, not at none.

    A spacing that repeats a timestep visits it once, and timestep 0 is where the path ends: it is not visited.
    """
    visited = sorted({step for step in sampling_steps(spacing, steps, schedule.timesteps) if step > 0}, reverse=True)
    levels = torch.tensor([*visited, 0])
    signal, noise = (table.double() for table in schedule.signal_and_noise(levels, 1))
    signal = signal * schedule.latent_scale(levels, 1).double()
    ratio = noise / signal
    if signal[0] == 0:
        ratio[0] = max(PURE_NOISE_RATIO, 4 * float(ratio[1]))
    return SolverPath(timesteps=tuple(visited), ratio=ratio, size=torch.sqrt(signal**2 + noise**2))


class MultistepSampler(Sampler):
    """A solver that uses the predictions of earlier steps; deterministic.

    The denoiser's output is turned into clean latents here, with the model's own schedule: noise, velocity and clean
    prediction, zero terminal SNR and dynamic rescale are therefore all exact, whatever the solver.

    Args:
        steps, spacing, guidance: see `Sampler`.
        order: 1 is DDIM without noise; 2 suits guided sampling; 3 only mild guidance.
    """

    def __init__(self, *, steps: int, spacing: StepSpacing, guidance: Guidance, order: Literal[1, 2, 3] = 2) -> None:
        super().__init__(steps=steps, spacing=spacing, guidance=guidance)
        self.order = order

    def final_scale(self, schedule: NoiseSchedule) -> float:
        """Return 1: the path ends at timestep 0, which has no dynamic rescale."""
        return 1.0

    def _course(self, schedule: NoiseSchedule, prediction: Prediction, edits: Sequence[StepEdit]) -> SolverCourse:
        path = solver_path(schedule, self.spacing, self.steps)
        return SolverCourse(self._prepared_solver(path, corrects=not edits), path, schedule, prediction)

    @abstractmethod
    def _solver(self, *, corrects: bool, steps: int) -> Any:
        """Make a scheduler of diffusers that is handed clean latents."""

    def _prepared_solver(self, path: SolverPath, *, corrects: bool) -> Any:
        count = len(path.timesteps)
        solver = self._solver(corrects=corrects, steps=count)
        solver.set_timesteps(count)
        # Our own levels: its spacings, and its ratios that end before pure noise, are not those of the model.
        solver.timesteps = torch.tensor(path.timesteps)
        solver.sigmas = path.ratio.float()
        solver.set_begin_index(0)
        return solver


class SolverCourse(Course):
    """A sampling by a solver."""

    def __init__(self, solver: Any, path: SolverPath, schedule: NoiseSchedule, prediction: Prediction) -> None:
        self.timesteps = path.timesteps
        self.sizes = path.size.tolist()
        self.solver = solver
        self.schedule = schedule
        self.prediction = prediction

    def clean_scale(self, step: int, latents: Tensor) -> Float[Tensor, "batch ..."]:
        """Return 1."""
        return torch.ones_like(self.schedule.latent_scale(batch_of(self.timesteps[step], latents), latents.ndim))

    def clean(self, latents: Tensor, output: Tensor, step: Step) -> Tensor:
        """Predict clean latents without dynamic rescale."""
        clean = predict_clean(latents, output, step.timesteps, schedule=self.schedule, prediction=self.prediction)
        return clean / self.schedule.latent_scale(step.timesteps, latents.ndim)

    def next_latents(self, latents: Tensor, output: Tensor, clean: Tensor, step: Step) -> Tensor:
        """Hand the solver what it knows: latents of constant variance."""
        scaled = self.solver.step(clean, step.timestep, latents / self.sizes[step.index], return_dict=False)[0]
        return scaled * self.sizes[step.index + 1]


class DPMSolverSampler(MultistepSampler):
    """DPM-Solver++, multistep (arXiv 2211.01095)."""

    def _solver(self, *, corrects: bool, steps: int) -> DPMSolverMultistepScheduler:
        return DPMSolverMultistepScheduler(
            solver_order=self.order,
            prediction_type="sample",
            final_sigmas_type="sigma_min",
            # The last step spans most of the log signal-to-noise ratio; extrapolating over it does harm.
            euler_at_final=True,
        )


class UniPCSampler(MultistepSampler):
    """UniPC: a corrector before every step, at no further evaluation (arXiv 2302.04867).

    Together with edits of the latents there is no correction: it would undo what an edit did since the last step.
    """

    def _solver(self, *, corrects: bool, steps: int) -> UniPCMultistepScheduler:
        return UniPCMultistepScheduler(
            solver_order=self.order,
            prediction_type="sample",
            final_sigmas_type="sigma_min",
            disable_corrector=[] if corrects else list(range(steps)),
        )
