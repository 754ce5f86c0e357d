from __future__ import annotations

import dataclasses

import pytest
import torch

from cami2v.backbones.dynamicrafter.attention import TemporalBlock
from cami2v.backbones.dynamicrafter.layers import sinusoidal_embedding
from cami2v.backbones.dynamicrafter.unet import DynamiCrafterUNet
from tests.tiny_models import FRAMES, randomise, tiny_conditioning, tiny_latents, tiny_unet

TIMESTEPS = torch.tensor([10, 900])


def published_layout() -> DynamiCrafterUNet:
    with torch.device("meta"):
        return DynamiCrafterUNet(
            latent_channels=4,
            widths=[320, 640, 1280, 1280],
            residual_blocks=2,
            attention_downsamples=[1, 2, 4],
            head_width=64,
            transformer_depth=1,
            context_width=1024,
            dropout=0.1,
            temporal_dropout=0.1,
            frames=16,
            learnable_image_scale=True,
            initial_attention=True,
            activation_checkpointing=False,
            adapter_for=lambda site: None,
        )


def test_published_unet_offers_17_sites_where_they_say_they_are() -> None:
    unet = published_layout()
    kinds = [site.kind for site in unet.sites]
    assert {kind: kinds.count(kind) for kind in kinds} == {"initial": 1, "encoder": 6, "middle": 1, "decoder": 9}
    for site in unet.sites:
        block = unet.get_submodule(site.name)
        assert isinstance(block, TemporalBlock)
        assert block.self_attention.to_query.in_features == site.width
        assert block.self_attention.attention.num_heads == site.num_heads
    assert [site.downsample for site in unet.sites if site.kind == "middle"] == [8]
    assert [(site.width, site.num_heads) for site in unet.sites if site.kind == "initial"] == [(512, 8)]


def test_untrained_unet_predicts_zero() -> None:
    latents = tiny_latents()
    assert torch.equal(tiny_unet()(latents, TIMESTEPS, tiny_conditioning(latents), None), torch.zeros_like(latents))


@pytest.mark.parametrize(("channels", "frames"), [(4, 1), (48, 3), (192, FRAMES)])
def test_any_latent_width_and_fewer_frames(channels: int, frames: int) -> None:
    unet = tiny_unet(latent_channels=channels)
    randomise(unet)
    latents = tiny_latents(channels=channels, frames=frames)
    predicted = unet(latents, TIMESTEPS, tiny_conditioning(latents), None)
    assert predicted.shape == latents.shape
    assert predicted.std() > 0


def test_clips_of_a_batch_do_not_see_each_other() -> None:
    unet = tiny_unet()
    randomise(unet)
    latents = tiny_latents()
    conditioning = tiny_conditioning(latents)
    together = unet(latents, TIMESTEPS, conditioning, None)
    for clip in range(2):
        rows = {f.name: getattr(conditioning, f.name)[clip : clip + 1] for f in dataclasses.fields(conditioning)}
        alone = unet(
            latents[clip : clip + 1], TIMESTEPS[clip : clip + 1], dataclasses.replace(conditioning, **rows), None
        )
        torch.testing.assert_close(alone[0], together[clip], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("input_name", ["image_latents", "text_tokens", "image_tokens", "frame_rate"])
def test_every_condition_matters(input_name: str) -> None:
    unet = tiny_unet()
    randomise(unet)
    latents = tiny_latents()
    conditioning = tiny_conditioning(latents)
    changed = dataclasses.replace(conditioning, **{input_name: getattr(conditioning, input_name) + 1})
    difference = unet(latents, TIMESTEPS, changed, None) - unet(latents, TIMESTEPS, conditioning, None)
    assert difference.abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_close_to_float32(dtype: torch.dtype, autocast: bool) -> None:
    unet = tiny_unet()
    randomise(unet)
    latents = tiny_latents()
    conditioning = tiny_conditioning(latents)
    with torch.no_grad():
        expected = unet(latents, TIMESTEPS, conditioning, None)
        if not autocast:
            unet = unet.to(dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            predicted = unet(latents, TIMESTEPS, conditioning, None)
    assert predicted.dtype == torch.float32
    assert (predicted - expected).norm() / expected.norm() < 0.05


def test_step_embedding_starts_with_cosines() -> None:
    embedded = sinusoidal_embedding(torch.tensor([0.0, 2.0]), 4)
    torch.testing.assert_close(embedded[0], torch.tensor([1.0, 1.0, 0.0, 0.0]))
    expected = torch.tensor([2.0, 0.02]).cos(), torch.tensor([2.0, 0.02]).sin()
    torch.testing.assert_close(embedded[1], torch.cat(expected))


def test_too_many_frames() -> None:
    latents = tiny_latents(frames=FRAMES + 1)
    with pytest.raises(ValueError, match=r"5 frames.*at most 4 \(backbone\.frames\)"):
        tiny_unet()(latents, TIMESTEPS, tiny_conditioning(latents), None)


def test_size_that_the_levels_do_not_divide() -> None:
    latents = tiny_latents(size=7)
    with pytest.raises(ValueError, match=r"7x7.*multiples of 2.*data\.resolution"):
        tiny_unet()(latents, TIMESTEPS, tiny_conditioning(latents), None)


def test_image_tokens_that_do_not_group_by_frame() -> None:
    latents = tiny_latents()
    conditioning = tiny_conditioning(latents)
    conditioning = dataclasses.replace(conditioning, image_tokens=conditioning.image_tokens[:, :-1])
    with pytest.raises(ValueError, match=r"7 tokens for 4 frames"):
        tiny_unet()(latents, TIMESTEPS, conditioning, None)
