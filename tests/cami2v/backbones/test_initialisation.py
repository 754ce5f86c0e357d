"""Weights of an untrained backbone."""

from __future__ import annotations

import torch

from cami2v.backbones.initialisation import randomise_zero_weights
from cami2v.draws import Draws
from tests.tiny_models import tiny_cameras, tiny_cami2v, tiny_conditioning, tiny_latents, tiny_unet


def test_random_output_layers_let_gradients_reach_the_camera() -> None:
    control = tiny_cami2v()
    unet = tiny_unet(control.adapter_for)
    adapters = {name: value.clone() for name, value in unet.named_parameters() if ".camera." in name}
    latents = tiny_latents()

    def camera_gradient() -> float:
        condition = control.encode(tiny_cameras(), condition_frame=torch.tensor([0, 0]), draws=Draws(torch.arange(2)))
        unet.zero_grad()
        unet(latents, torch.tensor([10, 900]), tiny_conditioning(latents), condition).square().mean().backward()
        gradients = [value.grad for name, value in unet.named_parameters() if name in adapters]
        return sum(float(gradient.abs().sum()) for gradient in gradients if gradient is not None)

    assert camera_gradient() == 0
    randomise_zero_weights(unet)
    assert camera_gradient() > 0
    parameters = dict(unet.named_parameters())
    assert all(torch.equal(parameters[name], value) for name, value in adapters.items())
