from __future__ import annotations

import re

import torch

from cami2v.camera_control.motionctrl import MotionCtrl
from cami2v.draws import Draws
from tests.tiny_models import FRAMES, tiny_cameras, tiny_unet

DRAWS = Draws(torch.tensor([5, 6]))


def test_poses_take_the_condition_camera_to_each_camera() -> None:
    cameras = tiny_cameras()
    condition = MotionCtrl(trace_scale=2.0).encode(cameras, condition_frame=torch.tensor([1, 0]), draws=DRAWS)
    poses = condition.poses.unflatten(-1, (3, 4))
    identity = torch.eye(3).expand(FRAMES, 3, 3)
    torch.testing.assert_close(poses[0, :, :, :3], identity)
    # The cameras do not turn, so a relative translation is the difference of the two, times the trace scale.
    translation = cameras.world_to_camera[0, :, :, 3]
    torch.testing.assert_close(poses[0, :, :, 3], 2 * (translation - translation[1]).float())


def test_takes_all_sites_and_trains_their_second_attention() -> None:
    control = MotionCtrl(trace_scale=1.0)
    unet = tiny_unet(control.adapter_for)
    assert all(unet.get_submodule(site.name).camera is not None for site in unet.sites)
    (pattern,) = control.also_trains
    matched = {name for name, _ in unet.named_parameters() if re.fullmatch(pattern, name)}
    parts = ("to_query.weight", "to_key.weight", "to_value.weight", "to_output.weight", "to_output.bias")
    assert matched == {f"{site.name}.second_self_attention.{part}" for site in unet.sites for part in parts}
