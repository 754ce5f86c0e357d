"""The noise schedule of every published model."""

from __future__ import annotations

from cami2v.diffusion.schedule import NoiseSchedule

TIMESTEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012


def published_schedule(*, zero_terminal_snr: bool = False, dynamic_rescale_base: float | None = None) -> NoiseSchedule:
    """Make the schedule; the 512 models rescale to zero terminal SNR and scale their latents."""
    return NoiseSchedule(
        timesteps=TIMESTEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        kind="linear",
        zero_terminal_snr=zero_terminal_snr,
        dynamic_rescale_base=1.0 if dynamic_rescale_base is None else dynamic_rescale_base,
    )
