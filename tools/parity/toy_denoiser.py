"""The denoiser that stands for the network in cases of losses and sampling; its coefficients are in the case's text."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from tools.parity.cases import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyDenoiser:
    """noisy * z + sine * sin(t) + concatenated * c + context * mean(ctx), plus a shift where the camera is seen."""

    noisy: float
    sine: float
    concatenated: float
    context: float
    camera_shift: float

    def __call__(self, z: Tensor, t: Tensor, concatenated: Tensor, context: Tensor, *, camera: bool = False) -> Tensor:
        """Predict for noisy latents `z` (batch channels frames height width)."""
        wave = self.sine * torch.sin(t.float()).reshape(-1, 1, 1, 1, 1)
        mean = self.context * context.mean(dim=(1, 2)).reshape(-1, 1, 1, 1, 1)
        shift = self.camera_shift if camera else 0.0
        return self.noisy * z + wave + self.concatenated * concatenated + mean + shift


def read_toy_denoiser(case: Case) -> ToyDenoiser:
    """Read the coefficients. Raises ValueError where the text does not spell them."""
    number = r"(\d+(?:\.\d+)?)"
    found = case.stated(rf"{number}\*z\+{number}\*sin\(t\)\+{number}\*c_concat\+{number}\*mean\(")
    shift = re.search(rf"value {number}", case.parameters["what"])
    noisy, sine, concatenated, context = (float(each) for each in found)
    return ToyDenoiser(
        noisy=noisy,
        sine=sine,
        concatenated=concatenated,
        context=context,
        camera_shift=float(shift.group(1)) if shift else 0.0,
    )
