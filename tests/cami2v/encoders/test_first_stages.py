from __future__ import annotations

from typing import Any

import pytest
import torch

from cami2v.draws import Draws
from cami2v.encoders.autoencoder_kl import AutoencoderKLFirstStage
from cami2v.encoders.space_to_depth import SpaceToDepth


def tiny_autoencoder(**changes: Any) -> AutoencoderKLFirstStage:
    return AutoencoderKLFirstStage(
        channels=32, channel_multipliers=[1, 1], residual_blocks=1, latent_channels=4, scale=0.5, **changes
    )


def test_space_to_depth_is_lossless() -> None:
    first_stage = SpaceToDepth(factor=4)
    video = torch.rand(2, 3, 2, 8, 12)
    latents = first_stage.encode(video, Draws(torch.tensor([0, 1])))
    assert latents.shape == (2, first_stage.latent_channels, 2, 2, 3)
    assert torch.equal(first_stage.decode(latents), video)


def test_space_to_depth_keeps_a_patch_in_one_place() -> None:
    video = torch.zeros(1, 3, 1, 8, 8)
    video[:, :, :, 4:, :4] = 1
    latents = SpaceToDepth(factor=4).encode(video, Draws(torch.tensor([0])))
    assert torch.equal(latents[0, :, 0, 1, 0], torch.ones(48))
    assert latents.sum() == 48


def test_autoencoder_samples_the_posterior_with_the_sample_s_own_noise() -> None:
    first_stage = tiny_autoencoder()
    video = torch.rand(2, 3, 3, 8, 8) * 2 - 1
    both = first_stage.encode(video, Draws(torch.tensor([3, 4])))
    assert both.shape == (2, 4, 3, 4, 4)
    alone = first_stage.encode(video[1:], Draws(torch.tensor([4])))
    torch.testing.assert_close(both[1:], alone)
    assert not torch.allclose(alone, first_stage.encode(video[1:], Draws(torch.tensor([5]))))


def test_autoencoder_in_pieces_gives_the_same_frames() -> None:
    video = torch.rand(1, 3, 5, 8, 8)
    draws = Draws(torch.tensor([0]))
    whole, pieces = tiny_autoencoder(frames_at_once=16), tiny_autoencoder(frames_at_once=2)
    latents = whole.encode(video, draws)
    torch.testing.assert_close(pieces.encode(video, draws), latents)
    torch.testing.assert_close(pieces.decode(latents), whole.decode(latents))


def test_autoencoder_is_rebuilt_identically_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = tiny_autoencoder(seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    second = tiny_autoencoder(seed=3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize("first_stage", [SpaceToDepth(factor=4), tiny_autoencoder()])
def test_size_that_does_not_divide(first_stage: SpaceToDepth | AutoencoderKLFirstStage) -> None:
    with pytest.raises(ValueError, match=r"9x8.*multiples of.*data\.resolution"):
        first_stage.encode(torch.zeros(1, 3, 1, 9, 8), Draws(torch.tensor([0])))
