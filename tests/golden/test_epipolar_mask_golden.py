"""Epipolar masks of every option against the published mask builder, from poses."""

from __future__ import annotations

import pytest
import torch

from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.epipolar import EpipolarOptions, epipolar_mask
from tests.golden.model_cases import StoredPerturbation, assert_close, cameras, model_case

CASE = "epipolar_mask_flags"
FLAG_SETS = 7
PERTURB = "add_small_perturbation_on_zero_T"
OPTIONS = {
    "epipolar_hybrid_attention": "hybrid",
    "epipolar_hybrid_attention_v2": "hybrid_v2",
    "only_self_pixel_on_current_frame": "only_self_pixel_on_current_frame",
    "current_frame_as_register_token": "current_frame_as_register_token",
}


@pytest.mark.parametrize("flag_set", range(FLAG_SETS))
def test_mask_of_every_option(flag_set: int) -> None:
    case = model_case(CASE)
    geometry = case.hyper_parameters["geometry"]
    flags = case.hyper_parameters["flag_sets"][flag_set]
    clip_cameras, condition_frame = cameras(geometry)
    poses = scaled_relative_poses(clip_cameras, condition_frame, 1.0)
    assert_close(poses, case.output("relative_c2w"))
    batch, frames = poses.shape[:2]
    perturb = flags.get(PERTURB, False)
    draw = StoredPerturbation(geometry).normal("epipolar_perturbation", (frames, frames, 3))
    options = EpipolarOptions(**{ours: True for published, ours in OPTIONS.items() if flags.get(published, False)})
    for level in case.hyper_parameters["attention_resolution"]:
        mask = epipolar_mask(
            poses,
            clip_cameras.intrinsics_pixels,
            clip_cameras.height,
            clip_cameras.width,
            8 * level,
            draw if perturb else None,
            options,
        )
        different = mask != case.flagged_mask(f"{flag_set}__{8 * level}")
        blocks = different.view(batch, frames, -1, frames, mask.shape[2] // frames)
        if not perturb and not options.current_frame_as_register_token:
            # Same-frame blocks of the published masks are rounding noise without the perturbation.
            same = torch.arange(frames)
            blocks[:, same, :, same] = False
        assert int(blocks.sum()) <= 1
