"""The whole tiny model: what its numbers depend on, what trains, what sampling sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from cami2v.batch import Cameras, ClipBatch
from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.guidance import Guidance
from cami2v.model import VideoDiffusion
from launch.build import build_model
from launch.compose import compose_config
from tests.tiny_models import randomise

FRAMES, SIZE = 4, 32
SMALL = [
    f"data.frames={FRAMES}",
    f"data.resolution=[{SIZE},{SIZE}]",
    "backbone.widths=[32,64]",
    "backbone.head_width=16",
]


@pytest.fixture(scope="module")
def model() -> VideoDiffusion:
    built = build_model(compose_config("train", [*SMALL, "diffusion.prediction=x0"])).eval()
    randomise(built.backbone)
    randomise(built.camera)
    return built


def clips(count: int, *, caption: str = "a room") -> ClipBatch:
    generator = torch.Generator().manual_seed(0)
    poses = torch.eye(4, dtype=torch.float64)[:3].repeat(count, FRAMES, 1, 1)
    poses[..., 0, 3] = torch.linspace(0, 0.6, FRAMES, dtype=torch.float64)
    return ClipBatch(
        clip_ids=tuple(f"clip{number}" for number in range(count)),
        captions=(caption,) * count,
        seeds=torch.arange(10, 10 + count),
        video=torch.rand((count, 3, FRAMES, SIZE, SIZE), generator=generator) * 2 - 1,
        cameras=Cameras(
            world_to_camera=poses,
            intrinsics_pixels=torch.tensor([30.0, 30.0, 16.0, 16.0], dtype=torch.float64).repeat(count, FRAMES, 1),
            translation_scale=torch.ones(count, FRAMES, dtype=torch.float64),
            height=SIZE,
            width=SIZE,
        ),
        frame_indices=torch.arange(FRAMES).repeat(count, 1),
        frame_stride=torch.full((count,), 2),
        frames_per_second=torch.full((count,), 7.5),
    )


def sampler(scale: float = 1.0) -> DDIMSampler:
    guidance = Guidance(scale=scale, rescale=0.0, camera_scale=1.0, camera_schedule="constant")
    return DDIMSampler(steps=2, spacing="uniform_trailing", eta=0.0, temperature=1.0, guidance=guidance)


def one(batch: ClipBatch, row: int) -> ClipBatch:
    cameras = batch.cameras
    return replace(
        batch,
        clip_ids=batch.clip_ids[row : row + 1],
        captions=batch.captions[row : row + 1],
        cameras=replace(
            cameras,
            world_to_camera=cameras.world_to_camera[row : row + 1],
            intrinsics_pixels=cameras.intrinsics_pixels[row : row + 1],
            translation_scale=cameras.translation_scale[row : row + 1],
        ),
        **{
            name: getattr(batch, name)[row : row + 1]
            for name in ("seeds", "video", "frame_indices", "frame_stride", "frames_per_second")
        },
    )


def test_a_sample_loses_the_same_alone_and_in_a_batch(model: VideoDiffusion) -> None:
    batch = clips(3)
    with torch.no_grad():
        together = model(batch)
        alone = [model(one(batch, row)) for row in range(3)]
    assert together.timesteps.tolist() == [int(output.timesteps) for output in alone]
    separate = torch.stack([output.loss for output in alone])
    torch.testing.assert_close(together.loss_per_sample, separate, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(together.loss, separate.mean(), rtol=1e-4, atol=1e-6)


def test_loss_does_not_touch_the_global_generator(model: VideoDiffusion) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        first = model(clips(1)).loss
        torch.manual_seed(2)
        second = model(clips(1)).loss
    assert first == second


def test_building_is_repeatable_and_leaves_the_global_generator() -> None:
    config = compose_config("train", SMALL)
    state = torch.get_rng_state()
    first, second = build_model(config).state_dict(), build_model(config).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_sampling_sees_the_first_frame_only(model: VideoDiffusion) -> None:
    batch = clips(1)
    changed = batch.video.clone()
    changed[:, :, 1:] = 0
    video = model.generate(batch, sampler())
    assert video.shape == batch.video.shape
    assert video.abs().max() <= 1
    assert torch.equal(video, model.generate(replace(batch, video=changed), sampler()))
    changed[:, :, 0] = 0
    assert not torch.equal(video, model.generate(replace(batch, video=changed), sampler()))


def test_sampling_follows_cameras_and_caption(model: VideoDiffusion) -> None:
    batch = clips(1)
    video = model.generate(batch, sampler())
    still = replace(batch.cameras, world_to_camera=batch.cameras.world_to_camera[:, :1].repeat(1, FRAMES, 1, 1))
    assert not torch.equal(video, model.generate(replace(batch, cameras=still), sampler()))
    assert not torch.equal(video, model.generate(clips(1, caption="a red kitchen"), sampler()))
    assert not torch.equal(video, model.generate(batch, sampler(scale=3.0)))


def test_the_camera_is_encoded_once_per_clip(model: VideoDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = type(model.camera).encode

    def counted(self: object, *arguments: object, **keywords: object) -> object:
        calls.append(1)
        return encode(self, *arguments, **keywords)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(type(model.camera), "encode", counted)
    model.generate(clips(1), sampler(scale=3.0))
    assert len(calls) == 1


def test_what_trains() -> None:
    model = build_model(compose_config("train", SMALL))
    camera = model.select_trainable("camera")
    assert camera
    assert all(name.startswith("camera.") or ".camera." in name for name in camera)
    everything = model.select_trainable("all")
    assert set(camera) < set(everything)
    assert not any(name.startswith(("first_stage", "text_encoder", "image_encoder")) for name in everything)
    assert model.select_trainable([r"backbone\.output_.*"]) == [
        name for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    with pytest.raises(ValueError, match=r"trainer\.trainable: 'cameras' matches none"):
        model.select_trainable("cameras")
    model.train()
    assert not model.text_encoder.training
    assert not model.image_encoder.training
    assert model.backbone.training


def test_frame_rate_condition(model: VideoDiffusion) -> None:
    batch = clips(1)
    with torch.no_grad():
        slow, fast = (model(replace(batch, frame_stride=torch.tensor([stride]))).loss for stride in (1, 9))
    assert slow != fast
