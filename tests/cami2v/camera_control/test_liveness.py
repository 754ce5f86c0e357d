"""Does the guard tell a camera that works from the ways in which one does not?"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from cami2v.backbones.dynamicrafter.unet import DynamiCrafterUNet
from cami2v.batch import ClipBatch
from cami2v.camera_control.liveness import NOISE_LEVELS, GuardSettings, camera_effect, check_camera, verdict
from cami2v.model import VideoDiffusion
from cami2v.trajectories.presets import preset
from launch.build import build_model
from launch.compose import compose_config
from tests.cami2v.test_model import FRAMES, SIZE, SMALL, clips, one
from tests.tiny_models import randomise

METHODS = ("motionctrl", "cameractrl", "cami2v", "realcam_i2v")
ERROR = GuardSettings(camera_alive="error", camera_alive_step=50)
WARN, OFF = replace(ERROR, camera_alive="warn"), replace(ERROR, camera_alive="off")


def build(camera: str = "cami2v") -> VideoDiffusion:
    """Build a model whose backbone predicts something; its camera is as initialised."""
    model = build_model(compose_config("train", [*SMALL, f"camera={camera}"])).eval()
    initial = {name: weight.clone() for name, weight in model.named_parameters() if "camera." in name}
    randomise(model.backbone)
    with torch.no_grad():
        for name, weight in initial.items():
            model.get_parameter(name).copy_(weight)
    return model


def adapters(model: VideoDiffusion) -> list[nn.Parameter]:
    return [weight for name, weight in model.backbone.named_parameters() if ".camera." in name]


@pytest.fixture(scope="module")
def healthy() -> VideoDiffusion:
    model = build()
    randomise(model.backbone)
    randomise(model.camera)
    return model


def batch() -> ClipBatch:
    return one(clips(1), 0)


def scaled(model: VideoDiffusion, factor: float) -> VideoDiffusion:
    changed = copy.deepcopy(model)
    for name, weight in changed.backbone.named_parameters():
        if ".camera." in name and ("to_output" in name or "pluecker_projection" in name):
            weight.data.mul_(factor)
    return changed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_working_camera_is_alive_and_a_repetition_changes_nothing(
    healthy: VideoDiffusion, dtype: torch.dtype
) -> None:
    effect = camera_effect(copy.deepcopy(healthy).to(dtype), batch())
    assert effect.alive
    assert effect.changes["right"] == 0
    assert min(effect.changes["stationary"], effect.changes["shuffled"]) > 0.02
    assert effect.precision == torch.finfo(dtype).eps


@pytest.mark.parametrize("method", METHODS)
def test_initial_camera_weights_change_exactly_nothing_and_moved_ones_do(method: str) -> None:
    model = build(method)
    effect = camera_effect(model, batch())
    assert set(effect.changes.values()) == {0.0}
    assert not effect.exists
    assert not effect.alive
    assert set(camera_effect(copy.deepcopy(model).to(torch.bfloat16), batch()).changes.values()) == {0.0}
    for seed, weight in enumerate(adapters(model)):
        weight.data.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
    assert camera_effect(model, batch()).alive


def test_dead_adapters_stop_with_one_line_that_says_what_to_do(
    healthy: VideoDiffusion, caplog: pytest.LogCaptureFixture
) -> None:
    dead = scaled(healthy, 0.0)
    with pytest.raises(ValueError, match=r"checkpoint=runs/x: THE CAMERA CHANGES NOTHING: .* 0 stationary") as error:
        check_camera(dead, batch(), guards=ERROR, source="checkpoint=runs/x")
    assert "\n" not in str(error.value)
    for word in ("CamI2V issue 14", "load report", "camera=", "guards.camera_alive=warn"):
        assert word in str(error.value)
    assert caplog.records == []
    effect = check_camera(dead, batch(), guards=WARN, source="checkpoint=runs/x")
    assert effect is not None
    assert not effect.alive
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(error.value) == caplog.records[0].message
    assert check_camera(dead, batch(), guards=OFF, source="checkpoint=runs/x") is None


def test_an_effect_no_one_could_see_is_none(healthy: VideoDiffusion) -> None:
    effect = camera_effect(scaled(healthy, 1e-6), batch())
    assert effect.exists
    assert not effect.alive
    assert verdict(effect) == "THE CAMERA CHANGES ALMOST NOTHING"
    # Half precision blows any cause up to its rounding; that must not pass for an effect either.
    assert not camera_effect(scaled(healthy, 1e-6).to(torch.bfloat16), batch()).alive


def test_a_signal_that_never_reaches_the_network_is_found(
    healthy: VideoDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = healthy.backbone.forward
    monkeypatch.setattr(
        healthy.backbone, "forward", lambda noisy, t, conditioning, camera: forward(noisy, t, conditioning, None)
    )
    assert set(camera_effect(healthy, batch()).changes.values()) == {0.0}


def test_a_method_that_gives_every_trajectory_the_same_condition_is_found(
    healthy: VideoDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, first = healthy.camera.encode, batch().cameras
    monkeypatch.setattr(healthy.camera, "encode", lambda cameras, **rest: encode(first, **rest))
    assert set(camera_effect(healthy, batch()).changes.values()) == {0.0}


def test_an_untrained_backbone_predicts_nothing_to_change() -> None:
    model = build_model(compose_config("train", SMALL))
    randomise(model.camera)
    assert set(camera_effect(model, batch()).changes.values()) == {0.0}


def test_predictions_that_are_not_finite_are_no_sign_of_life(healthy: VideoDiffusion) -> None:
    broken = copy.deepcopy(healthy)
    adapters(broken)[0].data.fill_(float("nan"))
    with pytest.raises(ValueError, match="THE MODEL'S PREDICTION IS NOT FINITE"):
        check_camera(broken, batch(), guards=ERROR, source="")


def test_asking_a_working_model_to_stand_still_is_no_failure(healthy: VideoDiffusion) -> None:
    still = batch()
    poses = preset("static", FRAMES, 1.0)[None, :, :3]
    still = replace(still, cameras=replace(still.cameras, world_to_camera=poses))
    effect = check_camera(healthy, still, guards=ERROR, source="")
    assert effect is not None
    assert effect.changes["stationary"] == effect.changes["shuffled"] == 0
    assert effect.changes["moving"] > 0.02
    assert not camera_effect(scaled(healthy, 0.0), still).alive


def test_another_clip_lends_its_trajectory(healthy: VideoDiffusion) -> None:
    pair = clips(2)
    pair.cameras.world_to_camera[1, :, 2, 3] = -torch.linspace(0, 1, FRAMES, dtype=torch.float64)
    own = camera_effect(healthy, one(pair, 0)).changes
    lent = camera_effect(healthy, one(pair, 0), others=one(pair, 1).cameras).changes
    assert own["stationary"] == lent["stationary"]
    assert own["shuffled"] != lent["shuffled"]
    assert camera_effect(healthy, pair).alive


@pytest.mark.parametrize(("camera", "frames"), [("none", FRAMES), ("cami2v", 1)])
def test_where_there_is_no_camera_nothing_is_judged(camera: str, frames: int, caplog: pytest.LogCaptureFixture) -> None:
    model = build(camera)
    short = replace(batch(), video=torch.zeros(1, 3, frames, SIZE, SIZE), frame_indices=torch.arange(frames)[None])
    with caplog.at_level(logging.INFO):
        assert check_camera(model, short, guards=ERROR, source="checkpoint=runs/x") is None
    assert "checkpoint=runs/x: the camera is not checked" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_measuring_leaves_no_trace_and_costs_a_handful_of_predictions(
    healthy: VideoDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = copy.deepcopy(healthy).train()
    denoiser = model.backbone
    assert isinstance(denoiser, DynamiCrafterUNet)
    denoiser.encoder.eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    calls: list[bool] = []
    forward = model.backbone.forward

    def counted(*arguments: Any) -> torch.Tensor:
        calls.append(denoiser.middle.training)
        return forward(*arguments)

    monkeypatch.setattr(model.backbone, "forward", counted)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    effect = camera_effect(model, batch())
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    # The right trajectory twice, two others once, at each noise level; never in training mode.
    assert calls == [False] * 4 * len(NOISE_LEVELS)
    assert effect == camera_effect(model, batch())


def test_a_step_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="guards.camera_alive_step: got 0, expected at least 1"):
        replace(ERROR, camera_alive_step=0)
