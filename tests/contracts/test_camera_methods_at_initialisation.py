"""A camera method that has not trained yet must not change the backbone, not by a bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cami2v.camera_control.base import CameraControl
from cami2v.camera_control.cameractrl import CameraCtrl
from cami2v.camera_control.motionctrl import MotionCtrl
from cami2v.camera_control.none import NoCameraControl
from cami2v.camera_control.realcam_i2v import RealCamI2V
from cami2v.draws import Draws
from tests.tiny_models import (
    LATENT_DOWNSAMPLE,
    randomise,
    tiny_cameras,
    tiny_cami2v,
    tiny_conditioning,
    tiny_latents,
    tiny_pose_encoder,
    tiny_unet,
)


def realcam_i2v() -> RealCamI2V:
    return RealCamI2V(
        pose_encoder=tiny_pose_encoder(),
        insertion="main_branch",
        attention_levels=[2],
        full_attention_levels=[1],
        register_tokens=4,
        perturb_same_frame=True,
        trace_scale=1.0,
        latent_downsample=LATENT_DOWNSAMPLE,
    )


METHODS: dict[str, Callable[[], CameraControl]] = {
    "none": NoCameraControl,
    "motionctrl": lambda: MotionCtrl(trace_scale=1.0),
    "cameractrl": lambda: CameraCtrl(pose_encoder=tiny_pose_encoder(), trace_scale=1.0),
    "cami2v": tiny_cami2v,
    "cami2v_into_temporal_attention": lambda: tiny_cami2v(insertion="temporal_attention"),
    "cami2v_without_pose_encoder": lambda: tiny_cami2v(pose_encoder=None),
    "cami2v_condition_frame_keys": lambda: tiny_cami2v(keys="condition_frame"),
    "realcam_i2v": realcam_i2v,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_untrained_method_leaves_the_backbone_unchanged(method: str, dtype: torch.dtype) -> None:
    bare = tiny_unet()
    randomise(bare)
    control = METHODS[method]()
    controlled = tiny_unet(control.adapter_for)
    missing = controlled.load_state_dict(bare.state_dict(), strict=False).missing_keys
    assert all(".camera." in name for name in missing)
    assert bool(missing) == (method != "none")

    latents, timesteps = tiny_latents(), torch.tensor([10, 900])
    conditioning = tiny_conditioning(latents)
    draws = Draws(torch.tensor([5, 6]))
    with torch.no_grad():
        condition = control.to(dtype).encode(tiny_cameras(), condition_frame=torch.tensor([0, 2]), draws=draws)
        expected = bare.to(dtype)(latents, timesteps, conditioning, None)
        actual = controlled.to(dtype)(latents, timesteps, conditioning, condition)
    assert torch.equal(actual, expected)
    assert expected.abs().mean() > 0.01


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_trained_method_changes_the_backbone(method: str) -> None:
    control = METHODS[method]()
    unet = tiny_unet(control.adapter_for)
    randomise(unet)
    latents, timesteps = tiny_latents(), torch.tensor([10, 900])
    conditioning = tiny_conditioning(latents)
    with torch.no_grad():
        condition = control.encode(
            tiny_cameras(), condition_frame=torch.tensor([0, 2]), draws=Draws(torch.tensor([5, 6]))
        )
        without = unet(latents, timesteps, conditioning, None)
        controlled = unet(latents, timesteps, conditioning, condition)
    assert (controlled - without).abs().mean() > 1e-3
