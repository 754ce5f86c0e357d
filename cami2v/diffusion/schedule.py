"""The forward diffusion process: how much signal and noise each timestep has."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

ScheduleKind = Literal["linear", "sqrt_linear", "sqrt", "cosine"]

DYNAMIC_RESCALE_STEPS = 400
"""Timesteps over which the latent scale falls from 1 to its base (DynamiCrafter)."""


class NoiseSchedule:
    """Variance-preserving noise schedule over discrete timesteps 0 .. timesteps - 1.

    Args:
        timesteps: number of discrete noise levels.
        beta_start, beta_end: first and last noise variance; `cosine` ignores them.
        kind: `linear` is linear in the square root of beta (what diffusers calls scaled_linear); `sqrt_linear` is
            linear in beta; `sqrt` is its square root; `cosine` is Nichol and Dhariwal's (arXiv 2102.09672).
        zero_terminal_snr: rescale so that the last timestep is pure noise (arXiv 2305.08891, algorithm 1).
        dynamic_rescale_base: latents are multiplied by a factor falling from 1 to this; 1.0 for none.

    Tables are computed in float64 and used in float32. Not an nn.Module on purpose: casting a model to bfloat16 must
    not round its schedule.
    """

    def __init__(
        self,
        *,
        timesteps: int,
        beta_start: float,
        beta_end: float,
        kind: ScheduleKind,
        zero_terminal_snr: bool,
        dynamic_rescale_base: float,
    ) -> None:
        self.timesteps = timesteps
        self.zero_terminal_snr = zero_terminal_snr
        self.betas = noise_variances(timesteps, beta_start, beta_end, kind)
        if zero_terminal_snr:
            self.betas = rescale_to_zero_terminal_snr(self.betas)
        self.alphas_cumprod = torch.cumprod(1 - self.betas, dim=0)
        scales = torch.full((max(timesteps, DYNAMIC_RESCALE_STEPS),), dynamic_rescale_base, dtype=torch.float64)
        scales[:DYNAMIC_RESCALE_STEPS] = torch.linspace(
            1, dynamic_rescale_base, DYNAMIC_RESCALE_STEPS, dtype=torch.float64
        )
        table = torch.stack([self.alphas_cumprod.sqrt(), (1 - self.alphas_cumprod).sqrt(), scales[:timesteps]])
        self._table: Float32[Tensor, "3 timesteps"] = table.float()

    def signal_and_noise(
        self, timesteps: Int64[Tensor, " batch"], ndim: int
    ) -> tuple[Float32[Tensor, "batch ..."], Float32[Tensor, "batch ..."]]:
        """Look up sqrt(alpha_bar) and sqrt(1 - alpha_bar), shaped to broadcast over `ndim` axes."""
        signal, noise, _ = self._lookup(timesteps, ndim)
        return signal, noise

    def latent_scale(self, timesteps: Int64[Tensor, " batch"], ndim: int) -> Float32[Tensor, "batch ..."]:
        """Look up the dynamic rescale factor of clean latents, shaped to broadcast over `ndim` axes."""
        return self._lookup(timesteps, ndim)[2]

    def add_noise(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], timesteps: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch ..."]:
        """Draw x_t given x_0 and the noise (DDPM, arXiv 2006.11239, equation 4). Does not apply `latent_scale`."""
        signal, sigma = self.signal_and_noise(timesteps, clean.ndim)
        return signal * clean + sigma * noise

    def velocity(
        self, clean: Float[Tensor, "batch ..."], noise: Float[Tensor, "batch ..."], timesteps: Int64[Tensor, " batch"]
    ) -> Float[Tensor, "batch ..."]:
        """Compute v of x_0 and the noise (arXiv 2202.00512, section 4 and appendix D)."""
        signal, sigma = self.signal_and_noise(timesteps, clean.ndim)
        return signal * noise - sigma * clean

    def _lookup(self, timesteps: Tensor, ndim: int) -> Tensor:
        if self._table.device != timesteps.device:
            self._table = self._table.to(timesteps.device)
        return self._table[:, timesteps].reshape(3, -1, *[1] * (ndim - 1))


def noise_variances(
    timesteps: int, beta_start: float, beta_end: float, kind: ScheduleKind
) -> Float64[Tensor, " timesteps"]:
    """Compute the noise variance beta of every timestep."""
    if kind == "cosine":
        offset = 0.008
        angle = (torch.arange(timesteps + 1, dtype=torch.float64) / timesteps + offset) / (1 + offset) * math.pi / 2
        signal = torch.cos(angle) ** 2
        signal = signal / signal[0]
        return (1 - signal[1:] / signal[:-1]).clamp(0, 0.999)
    if kind == "linear":
        return torch.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=torch.float64) ** 2
    betas = torch.linspace(beta_start, beta_end, timesteps, dtype=torch.float64)
    return betas if kind == "sqrt_linear" else betas.sqrt()


def rescale_to_zero_terminal_snr(betas: Float64[Tensor, " timesteps"]) -> Float64[Tensor, " timesteps"]:
    """Shift and scale sqrt(alpha_bar) so that its last value is 0 and its first is kept (arXiv 2305.08891)."""
    signal = torch.cumprod(1 - betas, dim=0).sqrt()
    signal = (signal - signal[-1]) * (signal[0] / (signal[0] - signal[-1]))
    alphas_cumprod = signal**2
    alphas = torch.cat([alphas_cumprod[:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
    return 1 - alphas
