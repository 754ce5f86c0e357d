"""Frame errors and the way from the model's range to bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from cami2v.evaluation.frame_metrics import frame_error


def video(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 6, 10, 3), dtype=np.uint8)


def test_psnr_equals_torchmetrics() -> None:
    errors = frame_error(video(0), video(1))
    for frame in range(4):
        first, second = (torch.from_numpy(video(seed)[frame]).double() for seed in (0, 1))
        expected = peak_signal_noise_ratio(first, second, data_range=255.0)
        assert errors.psnr_decibels[frame] == pytest.approx(float(expected), rel=1e-5)


def test_the_conditioning_frame_does_not_count() -> None:
    truth, generated = video(0), video(0)
    generated[0] = 255 - generated[0]
    assert frame_error(generated, truth).figures() == {"MSE": 0.0, "PSNR_dB": float("inf")}
    generated[2] = 255 - generated[2]
    assert frame_error(generated, truth).figures()["MSE"] > 0


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="both need the same size"):
        frame_error(video(0)[:, :5], video(0))
