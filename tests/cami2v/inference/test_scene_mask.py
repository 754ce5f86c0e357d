"""The mask of what a rendered scene covers."""

from __future__ import annotations

import pytest
import torch

from cami2v.inference.scene_mask import SceneMaskRule, box_at_least, not_black, scene_mask

PUBLISHED = SceneMaskRule()


def rendered(height: int, width: int) -> torch.Tensor:
    """A video of two frames: all grey, then black."""
    video = torch.full((1, 3, 2, height, width), 0.1)
    video[:, :, 1] = -1
    return video


def test_full_frames_are_kept_and_black_ones_are_not():
    mask = scene_mask(not_black(rendered(32, 48)), (4, 6), PUBLISHED)
    assert mask.shape == (1, 1, 2, 4, 6)
    assert mask[:, :, 0].all()
    assert not mask[:, :, 1].any()


def test_one_lit_channel_is_enough():
    video = torch.full((1, 3, 1, 32, 32), -1.0)
    video[:, 1] = -0.9
    assert scene_mask(not_black(video), (4, 4), PUBLISHED).all()


def test_a_hole_grows_by_the_window():
    covered = torch.ones((1, 1, 11, 11), dtype=torch.bool)
    covered[..., 5, 5] = False
    kept = box_at_least(covered, window=5, share=1.0)
    assert (~kept).nonzero()[:, 2:].aminmax(dim=0).min.tolist() == [3, 3]
    assert (~kept).sum() == 25
    assert box_at_least(covered, window=5, share=24 / 25).all()
    assert not box_at_least(covered, window=5, share=0.97).all()


def test_the_border_mirrors_without_its_own_row():
    covered = torch.ones((1, 1, 6, 6), dtype=torch.bool)
    covered[..., 1, :] = False
    kept = box_at_least(covered, window=3, share=4 / 9)
    assert not kept[..., 0, :].any(), "row 0 sees row 1 twice: a third is left"
    assert kept[..., 1, :].all(), "two thirds are left"


@pytest.mark.parametrize("window", [0, 4, 9])
def test_windows_that_do_not_fit_are_refused(window):
    with pytest.raises(ValueError, match=f"scene mask: window={window} over 4x5 pixels; use an odd number"):
        box_at_least(torch.ones((1, 1, 4, 5), dtype=torch.bool), window=window, share=1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 2}, "window=2: .* odd"),
        ({"covered_share": 0.0}, "covered_share=0.0"),
        ({"latent_share": 1.1}, "latent_share=1.1"),
    ],
)
def test_rules_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        SceneMaskRule(**changes)
