"""A sampler as values that JSON can hold."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.multistep import DPMSolverSampler, MultistepSampler, UniPCSampler
from cami2v.diffusion.sampler import Sampler
from cami2v.diffusion.steps import StepSpacing

SamplerKind = Literal["ddim", "dpm_solver", "unipc"]

MULTISTEP: dict[SamplerKind, type[MultistepSampler]] = {"dpm_solver": DPMSolverSampler, "unipc": UniPCSampler}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSettings:
    """How noise becomes a video (docs/sample.md)."""

    kind: SamplerKind
    steps: int
    spacing: StepSpacing
    guidance_scale: float
    guidance_rescale: float
    camera_guidance: float
    camera_guidance_schedule: Literal["constant", "cosine"]
    eta: float | None
    """DDIM only: 0 is deterministic."""
    temperature: float | None
    """DDIM only."""
    order: Literal[1, 2, 3] | None
    """Multistep solvers only."""

    def __post_init__(self) -> None:
        """Raise ValueError for settings that contradict each other."""
        own = {"eta": self.eta, "temperature": self.temperature}
        for key, value in own.items():
            if (value is None) == (self.kind == "ddim"):
                raise ValueError(f"{key}={value}: sampler={self.kind}; {key} belongs to sampler=ddim, which needs it")
        if (self.order is None) != (self.kind == "ddim"):
            raise ValueError(f"order={self.order}: sampler={self.kind}; the solvers need it, DDIM has none")
        if self.steps < 1:
            raise ValueError(f"steps: got {self.steps}, expected a number above 0")
        self._guidance()

    @classmethod
    def of(cls, sampler: Sampler) -> SamplerSettings:
        """Describe a sampler; raises ValueError for one that is not of this library."""
        kinds: dict[type[Sampler], SamplerKind] = {
            DDIMSampler: "ddim",
            **{kind: name for name, kind in MULTISTEP.items()},
        }
        if type(sampler) not in kinds:
            raise ValueError(
                f"sampler: {type(sampler).__name__} cannot be written down; use one of {', '.join(MULTISTEP)}"
            )
        guidance = sampler.guidance
        return cls(
            kind=kinds[type(sampler)],
            steps=sampler.steps,
            spacing=sampler.spacing,
            guidance_scale=float(guidance.scale),
            guidance_rescale=float(guidance.rescale),
            camera_guidance=float(guidance.camera_scale),
            camera_guidance_schedule=guidance.camera_schedule,
            eta=float(sampler.eta) if isinstance(sampler, DDIMSampler) else None,
            temperature=float(sampler.temperature) if isinstance(sampler, DDIMSampler) else None,
            order=sampler.order if isinstance(sampler, MultistepSampler) else None,
        )

    def changed(self, *, kind: SamplerKind | None = None, **changes: Any) -> SamplerSettings:
        """Return the settings with what is not None in their place; another kind brings what it needs.

        Multistep solvers then get the spacing they are good with, DDIM no noise.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if kind is None or kind == self.kind:
            return dataclasses.replace(self, **given)
        own: dict[str, Any] = {"eta": None, "temperature": None, "order": 2, "spacing": "quad_trailing"}
        if kind == "ddim":
            own = {"eta": 0.0, "temperature": 1.0, "order": None, "spacing": "uniform_trailing"}
        elif self.kind in MULTISTEP:
            own = {}
        return dataclasses.replace(self, kind=kind, **(own | given))

    def build(self) -> Sampler:
        """Make the sampler."""
        guidance = self._guidance()
        if self.kind == "ddim":
            assert self.eta is not None
            assert self.temperature is not None
            return DDIMSampler(
                steps=self.steps, spacing=self.spacing, eta=self.eta, temperature=self.temperature, guidance=guidance
            )
        assert self.order is not None
        return MULTISTEP[self.kind](steps=self.steps, spacing=self.spacing, guidance=guidance, order=self.order)

    def _guidance(self) -> Guidance:
        return Guidance(
            scale=self.guidance_scale,
            rescale=self.guidance_rescale,
            camera_scale=self.camera_guidance,
            camera_schedule=self.camera_guidance_schedule,
        )
