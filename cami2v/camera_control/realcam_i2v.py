"""RealCam-I2V (arXiv 2502.10059): CamI2V whose poses are in metres."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.camera_control.cami2v import CamI2V, CamI2VCondition
from cami2v.draws import Draws


class RealCamI2V(CamI2V):
    """CamI2V on cameras with a metric `translation_scale` (section 3.1); the network is the same.

    `scaled_relative_poses` applies the scale; this class only insists that there is one.
    """

    needs_metric_scale = True

    def encode(self, cameras: Cameras, *, condition_frame: Int64[Tensor, " batch"], draws: Draws) -> CamI2VCondition:
        """Encode metric poses; raises ValueError for a scale that is not positive and finite."""
        scale = cameras.translation_scale
        valid = (torch.isfinite(scale) & (scale > 0)).all(dim=-1)
        if not valid.all():
            rows = (~valid).nonzero().flatten().tolist()
            raise ValueError(
                f"cameras.translation_scale: not positive and finite in clips {rows} of the batch; RealCam-I2V needs "
                "the metric scale of every frame (pack clips that have one, or use camera=cami2v)"
            )
        return super().encode(cameras, condition_frame=condition_frame, draws=draws)
