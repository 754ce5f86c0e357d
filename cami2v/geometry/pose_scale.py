"""The unit of camera translations that a model is trained and sampled with."""

from __future__ import annotations

from enum import StrEnum

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from cami2v.geometry.cameras import relative_poses

STATIONARY = 1e-6
"""Clips whose camera never moves farther than this (own unit) are not scaled up."""


class ScalePolicy(StrEnum):
    """How translations become comparable between clips."""

    RELATIVE = "relative"
    """As the pose file has them: an arbitrary unit per clip (CamI2V, CameraCtrl, MotionCtrl)."""
    FIRST_FRAME_NORMALIZED = "first_frame_normalized"
    """The camera farthest from the first one is at distance 1."""
    METRIC = "metric"
    """Metres (RealCam-I2V); needs a metric scale per clip."""


def translation_scale(
    policy: ScalePolicy,
    world_to_camera: Float64[Tensor, "frames 3 4"],
    metric_scale: Float[Tensor, " frames"] | None,
    *,
    where: str,
) -> Float64[Tensor, " frames"]:
    """Compute the factor that takes each frame's translations to the policy's unit.

    `where` names the clip in errors (shard and sample key).

    Raises:
        ValueError: the metric policy without a finite, positive metric scale.
    """
    frames = world_to_camera.shape[0]
    if policy == ScalePolicy.RELATIVE:
        return torch.ones(frames, dtype=torch.float64)
    if policy == ScalePolicy.FIRST_FRAME_NORMALIZED:
        first: Int64[Tensor, " batch"] = torch.zeros(1, dtype=torch.int64)
        distance = relative_poses(world_to_camera[None], first)[0, :, :3, 3].norm(dim=-1).max()
        factor = 1.0 / distance if distance > STATIONARY else torch.ones((), dtype=torch.float64)
        return factor.repeat(frames)
    if metric_scale is None:
        raise ValueError(
            f"{where}: scale policy 'metric' but the clip has no metric_scale; "
            "pack with metric scales, or choose scale policy 'relative' or 'first_frame_normalized'"
        )
    if not (torch.isfinite(metric_scale) & (metric_scale > 0)).all():
        raise ValueError(f"{where}: metric_scale holds values that are not finite and positive; repack the clip")
    return metric_scale.double()
