"""Frame errors and the way from the model's range to bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio

from cami2v.evaluation.frame_metrics import frame_error, structural_similarity


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


def test_ssim_knows_the_same_frame_and_where_it_is() -> None:
    truth = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), dtype=np.uint8)
    assert structural_similarity(truth, truth) == pytest.approx(1, abs=1e-6)
    noisy = truth.copy()
    noisy[1] = np.clip(truth[1].astype(int) + 40, 0, 255)
    noisy[2] = np.random.default_rng(1).integers(0, 256, (24, 32, 3))
    first, brighter, other = structural_similarity(noisy, truth)
    assert first > brighter > other + 0.5
    with pytest.raises(ValueError, match="SSIM needs frames of 11x11 or more"):
        structural_similarity(truth[:, :8], truth[:, :8])
