"""Resizing and cropping, and where the intrinsics go."""

from __future__ import annotations

import pytest
import torch

from cami2v.geometry.framing import frame_images, frame_intrinsics, framing_for


@pytest.mark.parametrize("size", [(36, 64), (64, 36), (51, 93), (30, 30)])
def test_the_image_covers_the_target_and_little_more(size: tuple[int, int]) -> None:
    framing = framing_for(*size, (20, 32))
    assert framing.resized[0] >= 20
    assert framing.resized[1] >= 32
    assert 20 in framing.resized or 32 in framing.resized
    assert frame_images(torch.zeros(1, 3, *size), framing).shape == (1, 3, 20, 32)


def test_a_crop_moves_the_principal_point_unless_the_published_rule_is_asked_for() -> None:
    framing = framing_for(36, 64, (36, 36))
    assert framing.left == 14
    normalized = torch.tensor([0.5, 0.9, 0.6, 0.5], dtype=torch.float64)
    assert frame_intrinsics(normalized, framing).tolist() == pytest.approx([32, 32.4, 0.6 * 64 - 14, 18])
    published = frame_intrinsics(normalized, framing, "published")
    assert published.tolist() == pytest.approx([32, 32.4, 0.6 * 36, 18])


@pytest.mark.parametrize("size", [(1080, 1920), (240, 426), (480, 360), (333, 512)])
@pytest.mark.parametrize("target", [(256, 256), (320, 512)])
def test_the_rules_agree_to_half_a_pixel_for_a_centred_principal_point(
    size: tuple[int, int], target: tuple[int, int]
) -> None:
    framing = framing_for(*size, target)
    normalized = torch.tensor([0.6, 1.0, 0.5, 0.5], dtype=torch.float64)
    difference = frame_intrinsics(normalized, framing, "published") - frame_intrinsics(normalized, framing)
    assert difference.abs().max() <= 0.5


def test_pixels_that_are_not_square_become_square() -> None:
    framing = framing_for(100, 150, (100, 178), pixel_aspect=320 / 270)
    assert framing.resized == (100, 178)
