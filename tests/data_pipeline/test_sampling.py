"""Which frames of a clip are trained on."""

from __future__ import annotations

import pytest

from data_pipeline.sampling import SampleRandom, first_frames, select_frames


@pytest.mark.parametrize("stride", [1, 8, (1, 10), [2, 5]])
@pytest.mark.parametrize("available", [16, 17, 31, 61, 120, 121, 500])
def test_every_clip_that_is_long_enough_gives_frames_inside_it(available: int, stride: int | tuple[int, int]) -> None:
    for seed in range(20):
        chosen = select_frames(
            available=available, frames=16, stride=stride, random_integer=SampleRandom(seed), where="clip"
        )
        assert len(chosen.indices) == 16
        assert 0 <= chosen.indices[0] <= chosen.indices[-1] < available
        assert set(chosen.indices[1:] - chosen.indices[:-1]) == {chosen.stride}


# The published code divides by zero for the first two and never ends for the others.
@pytest.mark.parametrize(("available", "stride"), [(15, 8), (15, (1, 10)), (7, 8), (1, 4)])
def test_a_clip_that_is_too_short_is_refused(available: int, stride: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"shard 3: {available} frames, fewer than data.frames=16"):
        select_frames(available=available, frames=16, stride=stride, random_integer=SampleRandom(0), where="shard 3")


def test_a_stride_that_does_not_fit_falls_back_as_published() -> None:
    # Counts down while not even half the needed frames are there, then available // frames: 61 would allow stride 4.
    assert first_frames(available=61, frames=16, stride=8, where="clip").stride == 3
    assert first_frames(available=120, frames=16, stride=8, where="clip").stride == 7
    assert first_frames(available=60, frames=16, stride=(1, 10), where="clip").stride == 3
