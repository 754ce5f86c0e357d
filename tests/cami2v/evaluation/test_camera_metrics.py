"""Camera errors where the answer is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cami2v.evaluation.camera_metrics import camera_errors, stationary_errors

FRAMES = 5


def rotation_y(degrees: float) -> Tensor:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]], dtype=torch.float64)


def path(degrees_per_frame: float, step: tuple[float, float, float]) -> Tensor:
    """World-to-camera poses of a camera that turns about y and walks by `step` in world coordinates."""
    poses = []
    for frame in range(FRAMES):
        rotation = rotation_y(degrees_per_frame * frame).T
        center = frame * torch.tensor(step, dtype=torch.float64)
        poses.append(torch.cat([rotation, -(rotation @ center)[:, None]], dim=1))
    return torch.stack(poses)


def moved_world(world_to_camera: Tensor, scale: float) -> Tensor:
    """The same cameras in another world: turned, shifted, and measured in another unit."""
    turn, shift = rotation_y(40) @ rotation_y(0), torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)
    rotation = world_to_camera[..., :3] @ turn
    return torch.cat([rotation, (scale * world_to_camera[..., 3] + rotation @ shift)[..., None]], dim=-1)


def test_identical_paths_have_no_error() -> None:
    truth = path(3.0, (0.1, 0.0, 0.2))
    for name, value in camera_errors(truth, truth).figures().items():
        assert value == pytest.approx(0, abs=2e-6), name


def test_world_and_unit_of_the_estimate_do_not_matter() -> None:
    truth = path(3.0, (0.1, 0.0, 0.2))
    for name, value in camera_errors(truth, moved_world(truth, 7.0)).figures().items():
        assert value == pytest.approx(0, abs=2e-6), name


def test_known_rotation_error() -> None:
    errors = camera_errors(path(2.0, (0.1, 0, 0)), path(5.0, (0.1, 0, 0))).figures()
    per_frame = [3.0 * frame for frame in range(FRAMES)]
    assert errors["RotErr_sum_rad"] == pytest.approx(math.radians(sum(per_frame)), rel=1e-9)
    assert errors["RotErr_mean_deg"] == pytest.approx(sum(per_frame) / (FRAMES - 1), rel=1e-9)


def test_known_translation_error() -> None:
    errors = camera_errors(path(0.0, (1, 0, 0)), path(0.0, (0, 0, 0.5))).figures()
    # Normalised, frame k is k/4 along x and k/4 along z: sqrt(2) k/4 apart.
    distances = [math.sqrt(2) * frame / (FRAMES - 1) for frame in range(FRAMES)]
    for figure in ("TransErr", "CamMC"):
        assert errors[f"{figure}_sum"] == pytest.approx(sum(distances), rel=1e-7)
        assert errors[f"{figure}_mean"] == pytest.approx(sum(distances) / (FRAMES - 1), rel=1e-7)


def test_absolute_errors_see_the_unit() -> None:
    truth = path(0.0, (1, 0, 0))
    errors = camera_errors(truth, moved_world(truth, 3.0), unit="first").published()
    assert errors["TransErr_sum"] == pytest.approx(2 * sum(range(FRAMES)) / (FRAMES - 1), rel=1e-7)


def test_reversed_path_is_far_from_right() -> None:
    truth = path(3.0, (0.1, 0.0, 0.2))
    reversed_errors = camera_errors(truth, truth.flip(0)).published()
    stationary = stationary_errors(truth).published()
    assert reversed_errors["RotErr_sum_rad"] == pytest.approx(2 * stationary["RotErr_sum_rad"].item())
    assert reversed_errors["TransErr_sum"] > stationary["TransErr_sum"] > 1


def test_batches_equal_single_clips() -> None:
    truths = torch.stack([path(1.0, (0.1, 0, 0)), path(2.0, (0, 0.1, 0))])
    estimates = torch.stack([path(1.5, (0.1, 0, 0.1)), path(2.0, (0, 0.2, 0.1))])
    together = camera_errors(truths, estimates).figures()
    for index in range(2):
        alone = camera_errors(truths[index], estimates[index]).figures()
        for name, value in together.items():
            torch.testing.assert_close(value[index], alone[name])


@pytest.mark.parametrize("frames", [1, 4])
def test_different_lengths_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match="both need the same frames, at least two"):
        camera_errors(path(1.0, (0.1, 0, 0))[:frames], path(1.0, (0.1, 0, 0))[: 1 if frames == 1 else FRAMES])
