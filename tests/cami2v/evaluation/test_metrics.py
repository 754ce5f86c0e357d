"""Camera errors over clips: failures are counted, never averaged away unseen."""

from __future__ import annotations

import math

import pytest
import torch

from cami2v.evaluation.metrics import CameraMetric, CameraMotionConsistency, RotationError, TranslationError
from tests.cami2v.evaluation.test_camera_metrics import path

TRUTH = torch.stack([path(2.0, (0.1, 0, 0))] * 3)
ESTIMATE = torch.stack([path(degrees, (0.1, 0, 0)) for degrees in (3.0, 4.0, 12.0)])


def test_mean_and_median_leave_failures_out_and_count_them() -> None:
    metric = RotationError(published=False)
    metric.update(TRUTH, ESTIMATE, torch.tensor([True, True, False]))
    metric.update(TRUTH, torch.full_like(ESTIMATE, torch.nan), torch.tensor([False, False, False]))
    metric.update(TRUTH[:1], ESTIMATE[2:], torch.tensor([True]))
    result = metric.compute()
    # Errors of 1, 2 and 10 degrees times the frame number, mean over frames 1..4.
    assert result["mean"] == pytest.approx(2.5 * 13 / 3)
    assert result["median"] == pytest.approx(2.5 * 2)
    assert (int(result["clips"]), int(result["failed"])) == (7, 4)


def test_without_a_success_there_is_no_number() -> None:
    metric = TranslationError(published=True)
    metric.update(TRUTH, ESTIMATE, torch.tensor([False, False, False]))
    result = metric.compute()
    assert math.isnan(result["mean"])
    assert math.isnan(result["median"])
    assert int(result["failed"]) == 3


def test_published_figures_are_sums_over_frames() -> None:
    everything = torch.tensor([True, True, True])
    for metric_class, ratio in ((RotationError, math.radians(4)), (CameraMotionConsistency, 4), (TranslationError, 4)):
        published, per_frame = metric_class(published=True), metric_class(published=False)
        turned = ESTIMATE + torch.linspace(0, 0.1, 5, dtype=torch.float64)[:, None, None]
        published.update(TRUTH, turned, everything)
        per_frame.update(TRUTH, turned, everything)
        assert published.compute()["mean"] == pytest.approx(float(per_frame.compute()["mean"]) * ratio, abs=1e-6)


def test_injected_errors_give_their_closed_form() -> None:
    # The estimate turns k * 3 degrees too far about its own axis in frame k, and walks along z instead of x: of a path
    # of extent 1, frame k is k / 4 away along each. The rotation differs by 2 sqrt(2) sin(angle / 2) (Frobenius norm).
    truth, estimate = path(2.0, (0.1, 0.0, 0.0))[None], path(5.0, (0.0, 0.0, 0.7))[None]
    angles = [math.radians(3.0 * frame) for frame in range(5)]
    apart = [math.sqrt(2) * frame / 4 for frame in range(5)]
    both = [math.hypot(2 * math.sqrt(2) * math.sin(angle / 2), away) for angle, away in zip(angles, apart, strict=True)]
    expected = {
        RotationError: (sum(angles), math.degrees(sum(angles)) / 4),
        TranslationError: (sum(apart), sum(apart) / 4),
        CameraMotionConsistency: (sum(both), sum(both) / 4),
    }
    for metric_class, figures in expected.items():
        for published, figure in zip((True, False), figures, strict=True):
            metric = metric_class(published=published)
            metric.update(truth, estimate, torch.tensor([True]))
            assert float(metric.compute()["mean"]) == pytest.approx(figure, rel=1e-7)


def test_unknown_figure_is_refused() -> None:
    with pytest.raises(ValueError, match="figure='RotErr': allowed are RotErr_sum_rad"):
        CameraMetric(figure="RotErr")
