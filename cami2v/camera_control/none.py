"""The backbone alone: no camera signal."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraCondition, CameraControl
from cami2v.draws import Draws


@dataclass(frozen=True, slots=True, kw_only=True)
class NoCameraCondition(CameraCondition):
    """Nothing."""


class NoCameraControl(CameraControl):
    """Leave every block alone (plain DynamiCrafter, arXiv 2310.12190)."""

    def adapter_for(self, site: BlockSite) -> CameraAdapter | None:
        """Take no site."""
        return None

    def encode(self, cameras: Cameras, *, condition_frame: Int64[Tensor, " batch"], draws: Draws) -> CameraCondition:
        """Return the empty condition."""
        return NoCameraCondition()
