"""U-Net and camera methods against the published networks' outputs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from cami2v.attention.masks import DenseMask
from cami2v.camera_control.base import CameraCondition, CameraControl
from cami2v.camera_control.cami2v import CamI2V, CamI2VCondition
from cami2v.camera_control.motionctrl import MotionCtrlCondition
from cami2v.camera_control.pose_encoder import PoseEncoder
from cami2v.camera_control.pyramid import MaskPyramid
from tests.golden.model_builders import build_camera_control, build_unet, conditioning
from tests.golden.model_cases import (
    ModelCase,
    StoredPerturbation,
    assert_close,
    assert_same_names,
    cameras,
    fill,
    model_case,
    stored_keys,
)

UNET = {"ours": "backbone.", "released": "model.diffusion_model."}
POSE_ENCODER = {"ours": "camera.pose_encoder.", "released": "pose_encoder."}
MASK_MISMATCH = 1e-5

PLAIN = ["unet_perframe", "unet_shared_ctx_fsNone", "unet_nolearn_rect"]
CONTROLLED = [
    "cami2v_main_reg4",
    "cami2v_temporal_reg0",
    "cami2v_main_reg4_noposeenc",
    "cami2v_3dfull_reg4",
    "cami2v_condframe_reg4",
    "cami2v_noperturb_reg4",
    "cami2v_noepipolar",
    "cami2v_rect_res842",
    "cami2v_compress2_reg2",
    "cami2v_emptyrows_reg0",
    "cameractrl_a",
    "cameractrl_rect",
    "motionctrl_a",
    "motionctrl_rect",
]


@pytest.mark.parametrize("name", PLAIN + CONTROLLED)
def test_prediction_equals_the_published_one(name: str) -> None:
    case = model_case(name)
    settings = case.hyper_parameters
    control = build_camera_control(case.index["kind"], settings).eval()
    unet = build_unet(settings["unet"], control.adapter_for).eval()
    assert fill(unet, **UNET) == case.index["weights"]["unet"]["n_params"]
    assert_same_names(unet, **UNET, keys=stored_keys(name, "unet"))
    condition = None
    with torch.no_grad():
        if name in CONTROLLED:
            condition = encode_cameras(case, control)
        noisy = case.input("x")[:, :4]
        predicted = unet(noisy, case.input("timesteps"), conditioning(case), condition)
    assert_close(predicted, case.output("y"))


def encode_cameras(case: ModelCase, control: CameraControl) -> CameraCondition:
    """Encode the case's geometry, check what is stored of it and continue with the stored masks."""
    geometry = case.hyper_parameters["geometry"]
    clip_cameras, condition_frame = cameras(geometry)
    pose_encoder = getattr(control, "pose_encoder", None)
    if isinstance(pose_encoder, PoseEncoder):
        fill(pose_encoder, **POSE_ENCODER)
        assert_same_names(pose_encoder, **POSE_ENCODER, keys=stored_keys(case.name, "pose_encoder"))
    condition = control.encode(clip_cameras, condition_frame=condition_frame, draws=StoredPerturbation(geometry))
    if isinstance(condition, MotionCtrlCondition):
        assert_close(condition.poses, case.output("RT"))
    if isinstance(condition, CamI2VCondition) and "masks" in case.index:
        assert isinstance(control, CamI2V)
        masks = {level: stored_mask(case, level, control, condition) for level in condition.masks.levels}
        if control.perturb_same_frame:
            # Without the perturbation the published same-frame masks are rounding noise: nothing to compare with.
            for level, mask in masks.items():
                different = int((mask != condition.masks.at(level).dense()).sum())
                assert different <= max(1, MASK_MISMATCH * mask.numel())
        levels = {level: DenseMask(allowed=mask) for level, mask in masks.items()}
        condition = dataclasses.replace(condition, masks=MaskPyramid(levels=levels))
    return condition


def stored_mask(case: ModelCase, level: int, control: CamI2V, condition: CamI2VCondition) -> torch.Tensor:
    """Bring a stored mask into the form of the condition: where it has those only, keys of the conditioning frame."""
    mask = case.mask(str(level * control.latent_downsample))
    if control.condition_frame_only:
        frames = case.input("x").shape[2]
        rows = zip(mask.unflatten(2, (frames, -1)), condition.condition_frame, strict=True)
        mask = torch.stack([clip[:, frame] for clip, frame in rows])
    return mask
