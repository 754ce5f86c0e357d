from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch

from cami2v.attention import sdpa
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import DenseMask
from cami2v.backbones.activation_checkpointing import Checkpointing
from cami2v.backbones.initialisation import zero_initialised
from cami2v.camera_control.base import BlockSite, TokenGrid
from cami2v.camera_control.cami2v import CamI2V, CamI2VAdapter
from cami2v.camera_control.pyramid import MaskPyramid
from cami2v.camera_control.realcam_i2v import RealCamI2V
from cami2v.draws import Draws
from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.epipolar import EpipolarOptions, epipolar_mask
from tests.tiny_models import (
    FRAMES,
    LATENT_DOWNSAMPLE,
    randomise,
    tiny_cameras,
    tiny_cami2v,
    tiny_conditioning,
    tiny_latents,
    tiny_pose_encoder,
    tiny_unet,
)

CONDITION_FRAME = torch.tensor([0, 2])
DRAWS = Draws(torch.tensor([5, 6]))


def test_takes_every_site_but_the_initial_attention() -> None:
    unet = tiny_unet(tiny_cami2v().adapter_for)
    controlled = {site.name for site in unet.sites if unet.get_submodule(site.name).camera is not None}
    assert controlled == {site.name for site in unet.sites if site.kind != "initial"}
    assert len(controlled) == 7


def test_block_on_a_level_that_is_not_configured() -> None:
    with pytest.raises(ValueError, match=r"block encoder\.1\.temporal\.blocks\.0 works at latent downsample 1.*\[2\]"):
        tiny_unet(tiny_cami2v(attention_levels=[2]).adapter_for)


def test_full_attention_level_has_no_mask_and_no_gap() -> None:
    control = tiny_cami2v(attention_levels=[2], full_attention_levels=[1])
    unet = tiny_unet(control.adapter_for)
    randomise(unet)
    condition = control.encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
    assert set(condition.masks.levels) == {2}
    latents = tiny_latents()
    unet(latents, torch.tensor([1, 2]), tiny_conditioning(latents), condition)


def test_level_both_masked_and_full() -> None:
    with pytest.raises(ValueError, match=r"both name \[1\]"):
        tiny_cami2v(full_attention_levels=[1])


def test_method_without_any_camera_signal() -> None:
    with pytest.raises(ValueError, match="nothing controls the camera"):
        tiny_cami2v(pose_encoder=None, attention_levels=[])


def test_masks_are_the_geometry() -> None:
    cameras = tiny_cameras()
    condition = tiny_cami2v().encode(cameras, condition_frame=CONDITION_FRAME, draws=DRAWS)
    mask = condition.masks.at(2).dense()
    expected = epipolar_mask(
        scaled_relative_poses(cameras, CONDITION_FRAME, 1.0),
        cameras.intrinsics_pixels,
        cameras.height,
        cameras.width,
        2 * LATENT_DOWNSAMPLE,
        DRAWS.normal("epipolar_perturbation", (FRAMES, FRAMES, 3)),
        EpipolarOptions(),
    )
    assert torch.equal(mask, expected)
    assert 0.05 < expected.float().mean() < 0.95


def test_keys_of_the_condition_frame_only() -> None:
    everything = tiny_cami2v().encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
    one_frame = tiny_cami2v(keys="condition_frame").encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
    cells = 16
    for clip, frame in enumerate(CONDITION_FRAME.tolist()):
        first = frame * cells
        expected = everything.masks.at(2).dense()[clip][:, first : first + cells]
        assert torch.equal(one_frame.masks.at(2).dense()[clip], expected)


def test_perturbation_belongs_to_the_sample() -> None:
    control = tiny_cami2v(pose_encoder=None)

    def masks(cameras_batch: int, seeds: list[int]) -> torch.Tensor:
        draws = Draws(torch.tensor(seeds))
        frames = torch.zeros(cameras_batch, dtype=torch.int64)
        return control.encode(tiny_cameras(cameras_batch), condition_frame=frames, draws=draws).masks.at(1).dense()

    assert torch.equal(masks(2, [7, 8])[:1], masks(1, [7]))
    assert not torch.equal(masks(1, [7]), masks(1, [9]))


def test_main_branch_returns_the_sum_of_both_branches() -> None:
    control = tiny_cami2v()
    site = BlockSite(name="block", kind="encoder", width=32, num_heads=2, downsample=1)
    adapter = control.adapter_for(site)
    assert isinstance(adapter, CamI2VAdapter)
    randomise(adapter)
    condition = control.encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
    grid = TokenGrid(batch=2, frames=FRAMES, height=8, width=8)
    normed = torch.randn(2 * 8 * 8, FRAMES, 32)
    attention_input, both = adapter.before_self_attention(normed, condition, grid)
    assert attention_input is normed

    def without(part: str) -> torch.Tensor | None:
        silenced = copy.deepcopy(adapter)
        zero_initialised(silenced.get_submodule(part))
        return silenced.before_self_attention(normed, condition, grid)[1]

    pose, seen = without("epipolar.to_output"), without("pluecker_projection")
    assert pose is not None
    assert seen is not None
    torch.testing.assert_close(pose + seen, both)


def test_missing_pyramid_level_raises() -> None:
    control = tiny_cami2v()
    unet = tiny_unet(control.adapter_for)
    condition = control.encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
    condition = dataclasses.replace(condition, masks=MaskPyramid(levels={2: condition.masks.at(2)}))
    latents = tiny_latents()
    with pytest.raises(ValueError, match=r"no level for latent downsample 1, only \[2\]"):
        unet(latents, torch.tensor([1, 2]), tiny_conditioning(latents), condition)


@pytest.mark.parametrize("pose_encoder", [True, False])
def test_cameras_of_another_size_than_the_latents(pose_encoder: bool) -> None:
    control = tiny_cami2v() if pose_encoder else tiny_cami2v(pose_encoder=None)
    unet = tiny_unet(control.adapter_for)
    condition = control.encode(tiny_cameras(size=16), condition_frame=CONDITION_FRAME, draws=DRAWS)
    latents = tiny_latents()
    with pytest.raises(ValueError, match="same clip and size"):
        unet(latents, torch.tensor([1, 2]), tiny_conditioning(latents), condition)


def test_condition_moves_as_one_object() -> None:
    condition = tiny_cami2v().encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS).to("meta")
    masks = [mask for mask in condition.masks.levels.values() if isinstance(mask, EpipolarBands)]
    assert len(masks) == 2
    tensors = [condition.condition_frame, *condition.features.levels.values(), *(mask.fundamental for mask in masks)]
    assert all(tensor.is_meta for tensor in tensors)


def test_realcam_is_cami2v_in_metres() -> None:
    cameras = tiny_cameras()
    scale = torch.full_like(cameras.translation_scale, 2.5)
    metric = dataclasses.replace(cameras, translation_scale=scale)
    grown = cameras.world_to_camera.clone()
    grown[..., 3] *= 2.5
    control: CamI2V = RealCamI2V(
        pose_encoder=tiny_pose_encoder(),
        insertion="main_branch",
        attention_levels=[1, 2],
        full_attention_levels=[],
        register_tokens=4,
        perturb_same_frame=True,
        trace_scale=1.0,
        latent_downsample=LATENT_DOWNSAMPLE,
    )
    plain = tiny_cami2v(pose_encoder=control.pose_encoder)
    actual = control.encode(metric, condition_frame=CONDITION_FRAME, draws=DRAWS)
    larger_world = dataclasses.replace(cameras, world_to_camera=grown)
    expected = plain.encode(larger_world, condition_frame=CONDITION_FRAME, draws=DRAWS)
    torch.testing.assert_close(actual.features.at(1), expected.features.at(1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_realcam_refuses_a_clip_without_metric_scale(bad: float) -> None:
    cameras = tiny_cameras()
    scale = cameras.translation_scale.clone()
    scale[1, 3] = bad
    control = RealCamI2V(
        pose_encoder=None,
        insertion="main_branch",
        attention_levels=[1, 2],
        full_attention_levels=[],
        register_tokens=4,
        perturb_same_frame=True,
        trace_scale=1.0,
        latent_downsample=LATENT_DOWNSAMPLE,
    )
    with pytest.raises(ValueError, match=r"clips \[1\]"):
        control.encode(
            dataclasses.replace(cameras, translation_scale=scale), condition_frame=CONDITION_FRAME, draws=DRAWS
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_close_to_float32(dtype: torch.dtype, autocast: bool) -> None:
    control = tiny_cami2v()
    unet = tiny_unet(control.adapter_for)
    randomise(unet)
    latents = tiny_latents()
    conditioning = tiny_conditioning(latents)

    def predict() -> torch.Tensor:
        condition = control.encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
        return unet(latents, torch.tensor([10, 900]), conditioning, condition)

    with torch.no_grad():
        expected = predict()
        if not autocast:
            control.to(dtype)
            unet.to(dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            predicted = predict()
    assert (predicted - expected).norm() / expected.norm() < 0.05


@pytest.mark.parametrize("bundled", [False, True])
def test_activation_checkpointing_keeps_the_gradients_of_the_camera_alone(
    monkeypatch: pytest.MonkeyPatch, bundled: bool
) -> None:
    if bundled:
        monkeypatch.setattr(sdpa, "SMALL_CLIP", 0)
    gradients = []
    for activation_checkpointing in (False, True, "selective"):
        torch.manual_seed(4)
        control = tiny_cami2v()
        unet = tiny_unet(control.adapter_for, activation_checkpointing=activation_checkpointing)
        randomise(unet)
        for name, parameter in unet.named_parameters():
            parameter.requires_grad_(".camera." in name)
        latents = tiny_latents()
        condition = control.encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
        unet(latents, torch.tensor([10, 900]), tiny_conditioning(latents), condition).square().mean().backward()
        trained = [*unet.named_parameters(), *control.named_parameters()]
        gradients.append({name: p.grad for name, p in trained if p.requires_grad})
    plain, checkpointed, selective = gradients
    assert "pose_encoder.input_convolution.weight" in plain
    for name, gradient in plain.items():
        assert gradient is not None
        assert gradient.abs().sum() > 0, name
        torch.testing.assert_close(checkpointed[name], gradient)
        torch.testing.assert_close(selective[name], gradient)


@pytest.mark.parametrize(
    ("insertion", "activation_checkpointing", "changes"),
    [
        ("main_branch", False, {}),
        ("temporal_attention", True, {"register_tokens": 0, "keys": "condition_frame"}),
        ("main_branch", "selective", {}),
    ],
)
def test_bands_in_bundles_give_what_written_out_masks_give(
    monkeypatch: pytest.MonkeyPatch, insertion: str, activation_checkpointing: Checkpointing, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(sdpa, "SMALL_CLIP", 0)
    control = tiny_cami2v(insertion=insertion, **changes)
    unet = tiny_unet(control.adapter_for, activation_checkpointing=activation_checkpointing)
    randomise(unet)
    condition = control.encode(tiny_cameras(), condition_frame=CONDITION_FRAME, draws=DRAWS)
    levels = {level: DenseMask(allowed=mask.dense()) for level, mask in condition.masks.levels.items()}
    latents = tiny_latents()
    results = []
    for masks in (condition.masks, MaskPyramid(levels=levels)):
        unet.zero_grad()
        condition = dataclasses.replace(condition, masks=masks)
        predicted = unet(latents, torch.tensor([10, 900]), tiny_conditioning(latents), condition)
        predicted.square().mean().backward(retain_graph=True)
        gradients = [p.grad for name, p in unet.named_parameters() if ".camera.epipolar." in name]
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
        results.append([predicted, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
