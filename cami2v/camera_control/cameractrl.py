"""CameraCtrl on DynamiCrafter (arXiv 2404.02101): pose features enter the input of temporal self-attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cami2v.backbones.initialisation import zero_initialised
from cami2v.batch import Cameras
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraCondition, CameraControl, TokenGrid
from cami2v.camera_control.pose_encoder import PoseEncoder
from cami2v.camera_control.pyramid import Pyramid, feature_tokens
from cami2v.draws import Draws
from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.rays import pluecker_map


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraCtrlCondition(CameraCondition):
    """Pose features of every backbone level."""

    features: Pyramid


class CameraCtrlAdapter(CameraAdapter):
    """Add a projection of tokens and pose features to what the self-attention reads."""

    def __init__(self, site: BlockSite) -> None:
        super().__init__()
        self.downsample = site.downsample
        self.projection = zero_initialised(nn.Linear(site.width, site.width))

    def before_self_attention(
        self, normed: Float[Tensor, "positions frames width"], condition: CameraCondition, grid: TokenGrid
    ) -> tuple[Float[Tensor, "positions frames width"], None]:
        """Return the attention's input; nothing goes beside it."""
        assert isinstance(condition, CameraCtrlCondition)
        pose = feature_tokens(condition.features, self.downsample, grid).to(normed.dtype)
        return normed + self.projection(normed + pose), None


class CameraCtrl(CameraControl):
    """Control all temporal blocks but the initial one through Pluecker features."""

    def __init__(self, *, pose_encoder: PoseEncoder, trace_scale: float) -> None:
        super().__init__()
        self.pose_encoder = pose_encoder
        self.trace_scale = trace_scale

    def adapter_for(self, site: BlockSite) -> CameraAdapter | None:
        """Take every site but the initial attention."""
        return None if site.kind == "initial" else CameraCtrlAdapter(site)

    def encode(
        self, cameras: Cameras, *, condition_frame: Int64[Tensor, " batch"], draws: Draws
    ) -> CameraCtrlCondition:
        """Encode the Pluecker map of the poses relative to the conditioning camera."""
        with torch.no_grad():
            poses = scaled_relative_poses(cameras, condition_frame, self.trace_scale)
            pluecker = pluecker_map(poses, cameras.intrinsics_pixels, cameras.height, cameras.width)
        return CameraCtrlCondition(features=self.pose_encoder.encode(pluecker))
