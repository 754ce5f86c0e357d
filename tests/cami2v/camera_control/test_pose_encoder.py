from __future__ import annotations

import math

import pytest
import torch

from cami2v.camera_control.pose_encoder import sinusoidal_positions
from tests.tiny_models import FRAMES, tiny_pose_encoder


def test_one_feature_map_per_level_in_token_order() -> None:
    features = tiny_pose_encoder().encode(torch.randn(2, 6, 3, 32, 16))
    assert features.at(1).shape == (2, 8, 4, 3, 32)
    assert features.at(2).shape == (2, 4, 2, 3, 64)
    assert features.at(2).is_contiguous()


def test_positions_alternate_sine_and_cosine() -> None:
    table = sinusoidal_positions(3, 4)
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    torch.testing.assert_close(table[2], torch.tensor(expected))


def test_half_precision_encoder_accepts_float32_rays() -> None:
    features = tiny_pose_encoder().to(torch.bfloat16).encode(torch.randn(1, 6, 2, 16, 16))
    assert features.at(1).dtype == torch.bfloat16


def test_too_many_frames() -> None:
    with pytest.raises(ValueError, match=r"5 frames.*at most 4"):
        tiny_pose_encoder().encode(torch.randn(1, 6, FRAMES + 1, 16, 16))


def test_size_that_downscale_does_not_divide() -> None:
    with pytest.raises(ValueError, match=r"18x16.*multiples of 4"):
        tiny_pose_encoder().encode(torch.randn(1, 6, 2, 18, 16))
