from __future__ import annotations

import pytest
import torch

from cami2v.backbones.dynamicrafter.projector import Resampler


def resampler() -> Resampler:
    torch.manual_seed(0)
    return Resampler(
        input_width=6,
        width=16,
        output_width=10,
        depth=2,
        num_heads=2,
        head_width=8,
        queries_per_frame=3,
        frames=4,
    )


@pytest.mark.parametrize("frames", [1, 4])
def test_every_frame_gets_its_queries(frames: int) -> None:
    assert resampler()(torch.randn(2, 5, 6), frames).shape == (2, 3 * frames, 10)


def test_more_frames_than_queries() -> None:
    with pytest.raises(ValueError, match=r"5 frames.*queries for 4"):
        resampler()(torch.randn(2, 5, 6), 5)
