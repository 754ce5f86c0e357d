"""MotionCtrl on DynamiCrafter (arXiv 2312.03641): poses are concatenated to the tokens after temporal attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from cami2v.batch import Cameras
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraCondition, CameraControl, TokenGrid
from cami2v.draws import Draws
from cami2v.geometry.cameras import invert_pose, scaled_relative_poses

POSE_NUMBERS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionCtrlCondition(CameraCondition):
    """Conditioning-camera-to-camera [R|t] of every frame, row by row."""

    poses: Float32[Tensor, "batch frames 12"]


class MotionCtrlAdapter(CameraAdapter):
    """Replace the residual stream by a projection of itself and the frame's pose."""

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.projection = nn.Linear(site.width + POSE_NUMBERS, site.width)
        nn.init.eye_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def after_self_attention(
        self, hidden: Float[Tensor, "positions frames width"], condition: CameraCondition, grid: TokenGrid
    ) -> Float[Tensor, "positions frames width"]:
        """Project every token together with its frame's pose."""
        assert isinstance(condition, MotionCtrlCondition)
        poses = repeat(condition.poses.to(hidden.dtype), "b f p -> (b n) f p", n=grid.height * grid.width)
        return self.projection(torch.cat([hidden, poses], dim=-1))


class MotionCtrl(CameraControl):
    """Control all temporal blocks, the initial one included; their second attention trains along."""

    also_trains = (r".*\.temporal\.blocks\.\d+\.second_self_attention\..*",)

    def __init__(self, *, trace_scale: float) -> None:
        super().__init__()
        self.trace_scale = trace_scale

    def adapter_for(self, site: BlockSite) -> CameraAdapter | None:
        """Take every site."""
        return MotionCtrlAdapter(site)

    @torch.no_grad()
    def encode(
        self, cameras: Cameras, *, condition_frame: Int64[Tensor, " batch"], draws: Draws
    ) -> MotionCtrlCondition:
        """Flatten the poses that take the conditioning camera's coordinates to each camera's."""
        relative = scaled_relative_poses(cameras, condition_frame, self.trace_scale)
        from_condition = invert_pose(relative.double())[..., :3, :].float()
        return MotionCtrlCondition(poses=rearrange(from_condition, "b f r c -> b f (r c)"))
