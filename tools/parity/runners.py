"""Which function runs a case. Modules are imported when a case needs them, so that one family pulls in no other."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, cast

from tools.parity.checks import Checks

RUNNERS: dict[str, str] = {
    "data__frame_sampling": "data:frame_sampling",
    "data__resize": "data:resize",
    "data__single_image": "single_image:single_image",
    "data__two_images": "single_image:two_images",
    "ddim": "ddim:ddim",
    "epimask": "epipolar_masks:masks",
    "epimask__options": "epipolar_masks:options",
    "evalmetric": "camera_errors:camera_metrics",
    "fundamental": "geometry:fundamental",
    "fvd__frechet": "fvd:frechet",
    "fvd__i3d": "fvd:i3d",
    "loss__p_losses": "losses:p_losses",
    "loss__uncond_drop": "losses:condition_drop",
    "merge_summary": "evaluation:merge_and_summary",
    "plucker": "geometry:pluecker",
    "relpose": "geometry:relative",
    "sched__betas": "schedules:betas",
    "sched__buffers": "schedules:buffers",
    "sched__convert": "schedules:convert",
    "sched__ddim_params": "schedules:ddim_levels",
    "sched__ddim_timesteps": "schedules:ddim_steps",
    "sched__dynamic_rescale": "schedules:dynamic_rescale",
    "traj__get_image": "trajectories:demo_paths",
    "traj__lerp_bezier": "trajectories:interpolation",
    "traj__thresholded_conv": "evaluation:thresholded_convolution",
}
"""Cases of a folder itself: the start of the case's name -> `module:function` in tools.parity, a `run(Case) -> Checks`.
The longest row that fits wins."""

MODEL_RUNNERS: dict[str, str] = {
    "autoencoder_kl": "encoders:autoencoder",
    "cameractrl": "networks:unet",
    "cami2v": "networks:unet",
    "depth_anything_v2": "depth:depth",
    "end_to_end": "end_to_end:whole_model",
    "epipolar_mask": "network_masks:masks",
    "motionctrl": "networks:unet",
    "openclip_image_v2": "encoders:image",
    "openclip_text": "encoders:text",
    "pose_encoder": "networks:pose_encoder",
    "resampler": "networks:resampler",
    "unet_plain": "networks:unet",
}
"""Cases of `models/index.json`: their `kind` -> `module:function` in tools.parity, a `run(ModelCase) -> Checks`."""


def runner_of(name: str) -> str | None:
    """Name what runs a case of the folder itself; None where its family is unknown."""
    # `epimask__options` fits epimask__options_T4: what follows a family may be joined by one underscore or two.
    fitting = [family for family in RUNNERS if name == family or name.startswith((f"{family}__", f"{family}_"))]
    return RUNNERS[max(fitting, key=len)] if fitting else None


def load_runner(place: str) -> Callable[[Any], Checks]:
    """Import `module:function` of tools.parity."""
    module, name = place.split(":")
    return cast(Callable[[Any], Checks], getattr(importlib.import_module(f"tools.parity.{module}"), name))
