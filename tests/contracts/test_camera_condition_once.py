"""The camera condition is computed once per clip and trajectory, and every denoiser call gets that very object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cami2v.camera_control.interventions import Trajectory
from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.sampler import JointDenoiser
from cami2v.draws import Draws
from cami2v.evaluation.folder import EvaluationFolder
from cami2v.evaluation.generate import write_generated, write_ground_truth
from cami2v.inference.clips import joined_clips
from cami2v.model import VideoDiffusion
from launch.build import build_model
from launch.compose import compose_config, conf_folder, instantiate_part
from tests.tiny_models import randomise
from tools.orbit_clip import orbit_batch

FRAMES, STEPS = 3, 2
METHODS = sorted(path.stem for path in (conf_folder() / "camera").glob("*.yaml") if path.stem != "none")


class Watch:
    """Notes what `camera.encode` returned and what every call of the backbone was given."""

    def __init__(self, model: VideoDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoded: list[Any] = []
        self.given: list[Any] = []
        encode = model.camera.encode

        def noting(*args: Any, **kwargs: Any) -> Any:
            self.encoded.append(encode(*args, **kwargs))
            return self.encoded[-1]

        def look(module: nn.Module, args: tuple[Any, ...]) -> None:
            self.given.append(args[3])

        monkeypatch.setattr(model.camera, "encode", noting)
        model.backbone.register_forward_pre_hook(look)


def tiny_model(method: str, *overrides: str) -> tuple[VideoDiffusion, DDIMSampler]:
    config = compose_config("train", ["backbone=tiny", f"camera={method}", f"data.frames={FRAMES}", *overrides])
    config.sampler.steps = STEPS
    config.sampler.guidance.camera_scale = 1.5
    return build_model(config).eval(), instantiate_part(config.sampler, "sampler")


@pytest.mark.parametrize("method", METHODS)
def test_sampling_encodes_once_for_all_steps_and_branches(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampler = tiny_model(method)
    watch = Watch(model, monkeypatch)
    model.generate(orbit_batch(FRAMES, (64, 64)), sampler)
    (condition,) = watch.encoded
    assert len(watch.given) == 3 * STEPS
    with_camera = [given for given in watch.given if given is not None]
    assert len(with_camera) == 2 * STEPS
    assert all(given is condition for given in with_camera)


@torch.no_grad()
@pytest.mark.parametrize("method", ["cameractrl", "cami2v", "motionctrl"])
def test_branches_in_one_forward_pass_give_the_same_and_share_their_masks(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, sampler = tiny_model(method, "backbone.widths=[32,64]", "backbone.head_width=16")
    randomise(model.backbone)
    randomise(model.camera)
    first = orbit_batch(FRAMES, (64, 64))
    batch = joined_clips([first, dataclasses.replace(first, seeds=torch.tensor([5]), captions=("a garden",))])
    draws = Draws(batch.seeds)
    watch = Watch(model, monkeypatch)
    separate, image_latents = model.denoiser(batch, draws)
    joint, _ = model.denoiser(batch, draws, joint=True)
    noisy, timesteps = draws.normal("noisy", tuple(image_latents.shape[1:])), torch.tensor([700, 700])
    assert isinstance(joint, JointDenoiser)
    for _ in range(STEPS):
        outputs = joint.together(noisy, timesteps, sampler.guidance.branches)
    assert len(watch.given) == 2 * STEPS
    assert len({id(given) for given in watch.given if given is not None}) == 1
    for branch in sampler.guidance.branches:
        expected = separate(noisy, timesteps, branch)
        torch.testing.assert_close(outputs[branch], expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    masks = getattr(watch.encoded[1], "masks", None)
    assert masks is None or watch.given[0].masks is masks


@torch.no_grad()
def test_branches_that_do_not_fit_together_are_evaluated_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, sampler = tiny_model("cameractrl")
    randomise(model.backbone)
    draws = Draws(torch.tensor([3]))
    separate, latents = model.denoiser(orbit_batch(FRAMES, (64, 64)), draws)
    joint, _ = model.denoiser(orbit_batch(FRAMES, (64, 64)), draws, joint=True)
    assert isinstance(joint, JointDenoiser)
    tried = []

    def small_card(module: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args[0]) > 1:
            tried.append(len(args[0]))
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.backbone.register_forward_pre_hook(small_card)
    noisy, timesteps = draws.normal("noisy", tuple(latents.shape[1:])), torch.tensor([700])
    for _ in range(STEPS):
        outputs = joint.together(noisy, timesteps, sampler.guidance.branches)
    assert tried == [2]
    assert "not enough memory for both guidance branches" in caplog.text
    for branch in sampler.guidance.branches:
        assert torch.equal(outputs[branch], separate(noisy, timesteps, branch))


@torch.no_grad()
def test_masks_take_the_same_memory_whatever_the_number_of_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny_model("cami2v")
    watch, draws, sizes = Watch(model, monkeypatch), Draws(torch.tensor([3])), []
    for joint, scale, camera_scale in [(False, 1.0, 1.0), (False, 7.5, 1.0), (False, 7.5, 2.0), (True, 7.5, 2.0)]:
        guidance = Guidance(scale=scale, rescale=0.0, camera_scale=camera_scale, camera_schedule="constant")
        sampler = DDIMSampler(steps=STEPS, spacing="uniform_trailing", eta=0.0, temperature=1.0, guidance=guidance)
        watch.given.clear()
        predict, latents = model.denoiser(orbit_batch(FRAMES, (64, 64)), draws, joint=joint)
        sampler.sample(
            predict, schedule=model.schedule, prediction=model.prediction, shape=tuple(latents.shape[1:]), draws=draws
        )
        assert len(watch.given) == STEPS * (len(guidance.branches) - joint)
        held = [predict.camera, *(given for given in watch.given if given is not None)]
        sizes.append(held_bytes([getattr(condition, "masks", None) for condition in held]))
    assert sizes[0] > 0
    assert sizes == sizes[:1] * 4


def held_bytes(masks: list[Any]) -> int:
    """Add up the tensors that masks hold, what backends prepared for them included, each once."""
    storages: dict[int, int] = {}
    pending = list(masks)
    while pending:
        found = pending.pop()
        if isinstance(found, torch.Tensor):
            storages[found.untyped_storage().data_ptr()] = found.untyped_storage().nbytes()
        elif dataclasses.is_dataclass(found):
            pending += [getattr(found, field.name) for field in dataclasses.fields(found)]
        elif isinstance(found, (Mapping, list, tuple)):
            pending += found.values() if isinstance(found, Mapping) else found
    return sum(storages.values())


def test_evaluation_encodes_once_per_trajectory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampler = tiny_model("cami2v")
    watch = Watch(model, monkeypatch)
    folder = EvaluationFolder(tmp_path)
    orbit = orbit_batch(FRAMES, (64, 64))
    batches = [dataclasses.replace(orbit, clip_ids=(name,)) for name in ("a", "b")]
    write_ground_truth(folder, batches, crf=30)
    trajectories: tuple[Trajectory, ...] = ("right", "stationary", "shuffled")
    write_generated(folder, batches, lambda batch: model.generate(batch, sampler), trajectories=trajectories, crf=30)
    assert len(watch.encoded) == 2 * len(trajectories)
    assert len({id(condition) for condition in watch.encoded}) == len(watch.encoded)
    calls = torch.tensor([sum(given is condition for given in watch.given) for condition in watch.encoded])
    assert (calls == 2 * STEPS).all()


def test_masks_of_a_level_serve_all_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sampler = tiny_model("cami2v")
    watch = Watch(model, monkeypatch)
    model.generate(orbit_batch(FRAMES, (64, 64)), sampler)
    for mask in watch.encoded[0].masks.levels.values():
        assert list(mask.prepared) == ["sdpa"]
