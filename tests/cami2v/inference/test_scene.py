"""RealCam-I2V's scene: the preview through metric depth, and sampling that follows it."""

from __future__ import annotations

import base64
import dataclasses
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cami2v.diffusion.edits import NoiseShaping
from cami2v.encoders.depth_anything import DepthAnythingV2
from cami2v.inference import Pipeline
from cami2v.inference.image_clip import image_clip
from cami2v.inference.pipeline import Generated
from cami2v.inference.record import Record
from cami2v.inference.request import Request
from cami2v.inference.scene import (
    NoiseShapingRule,
    framed_depth,
    noise_shaping,
    open_depth,
    render_scene,
    without_outliers,
)
from cami2v.inference.scene_mask import SceneMaskRule
from cami2v.trajectories.choose import choose
from cami2v.trajectories.trajectory import Trajectory
from data_pipeline.synthetic.render import render_frame
from data_pipeline.synthetic.surfaces import build_scene
from data_pipeline.synthetic.world import camera_path, intrinsics_pixels, plan_sources
from data_pipeline.synthetic.write import LEVELS, TEXELS_PER_PIXEL_COLUMN
from tests.data_pipeline.synthetic.worlds import small_world
from tests.launch.untrained import random_run

FRAMES, SIZE = 4, 32
SMALL = [
    f"data.frames={FRAMES}", f"data.resolution=[{SIZE},{SIZE}]", "sampler.steps=4", "backbone.widths=[32,64]",
    "backbone.head_width=16", "camera.pose_encoder.num_heads=2", "sampler.guidance.scale=1.0",
]  # fmt: skip
SHAPED: dict[str, Any] = {"noise_shaping": 1, "metres_per_unit": 1.0, "seed": 3, "scene_mask": SceneMaskRule(window=3)}


@dataclasses.dataclass(frozen=True)
class Filmed:
    """A clip of a synthetic room, in metres."""

    frames: list[np.ndarray]
    depth: np.ndarray
    trajectory: Trajectory


@pytest.fixture(scope="module")
def filmed() -> Filmed:
    world = small_world(path_kinds=("truck",))
    source = plan_sources(world)[0]
    poses = camera_path(world, source, source.clips[0])[-FRAMES:]
    scene = build_scene(source.room_name, round(TEXELS_PER_PIXEL_COLUMN * world.width), LEVELS)
    intrinsics = intrinsics_pixels(world, source)
    rendered = [render_frame(scene, pose, intrinsics, world.height, world.width, 2) for pose in poses]
    trajectory = Trajectory(
        world_to_camera=torch.linalg.inv(torch.from_numpy(poses))[:, :3],
        intrinsics_normalized=torch.from_numpy(source.intrinsics_normalized).repeat(FRAMES, 1),
    )
    return Filmed(frames=[image for image, _ in rendered], depth=rendered[0][1], trajectory=trajectory)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return Pipeline.from_pretrained(random_run(tmp_path_factory.mktemp("run"), SMALL))


def picture(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1


def as_video(frames: np.ndarray) -> Tensor:
    return torch.from_numpy(frames).permute(3, 0, 1, 2).float() / 127.5 - 1


def test_the_preview_is_what_the_room_looks_like_from_there(pipeline: Pipeline, filmed: Filmed) -> None:
    """The middle of a wide image, at another resolution, moved through its true depth."""
    pictures = [picture(frame) for frame in filmed.frames]
    (request,) = pipeline.requests([("", pictures[0])], trajectory=filmed.trajectory, **SHAPED)
    depth = pipeline.scene_depth(request, pictures[0], filmed.depth)
    assert depth.shape == (SIZE, SIZE)
    scene = pipeline.preview(request, pictures[0], depth)
    truth = torch.stack([pipeline.clip(request, each).video[0, :, 0] for each in pictures], dim=1)
    assert 0.5 < scene.covered[-1].float().mean() < 1
    error = (scene.video - truth).abs().mean(dim=0)[-1][scene.covered[-1]].mean()
    unmoved = (truth[:, 0] - truth[:, -1]).abs().mean(dim=0)[scene.covered[-1]].mean()
    assert error < 0.25 * unmoved
    half = dataclasses.replace(filmed.trajectory, world_to_camera=filmed.trajectory.world_to_camera.clone())
    half.world_to_camera[:, :, 3] *= 0.5
    (wrong,) = pipeline.requests([("", pictures[0])], trajectory=half, **SHAPED)
    other = pipeline.preview(wrong, pictures[0], depth)
    assert (other.video - truth).abs().mean(dim=0)[-1][other.covered[-1]].mean() > 1.5 * error, "the unit matters"


def test_sampling_follows_the_scene_where_it_is_covered(pipeline: Pipeline, filmed: Filmed) -> None:
    image = filmed.frames[0]
    options: dict[str, Any] = {"trajectory": filmed.trajectory, "seed": 3}
    (free,) = pipeline(image, **options)
    (unused,) = pipeline(image, **options, depth=filmed.depth)
    assert np.array_equal(free.frames, unused.frames)
    assert free.preview is None
    (late,) = pipeline(image, **options | SHAPED | {"noise_shaping": 999}, depth=filmed.depth)
    (shaped,) = pipeline(image, **options | SHAPED, depth=filmed.depth)
    assert shaped.preview is not None
    target, seen = as_video(shaped.preview), torch.from_numpy(shaped.preview.any(axis=-1))

    def distance(made: Generated) -> float:
        return (as_video(made.frames) - target).abs().mean(dim=0)[seen].mean().item()

    assert distance(shaped) < 0.8 * distance(free)
    assert distance(shaped) < distance(late)
    assert not np.array_equal(late.frames, free.frames)


def test_a_shaped_video_can_be_made_again(pipeline: Pipeline, filmed: Filmed) -> None:
    image = filmed.frames[0]
    options: dict[str, Any] = {"trajectory": filmed.trajectory, **SHAPED}
    (made,) = pipeline(image, depth=filmed.depth, **options)
    request = Request.from_json(made.request.to_json())
    assert request == made.request
    assert request.noise_shaping == NoiseShapingRule(minimum_timestep=1, mask=SHAPED["scene_mask"])
    record = Record.from_json(Record.of(made).to_json(), Path("video.mp4"))
    depth = record.depth_map()
    assert depth is not None
    (again,) = pipeline.generate([request], [made.picture], depths=[depth])
    assert np.array_equal(again.frames, made.frames)
    unfolding = base64.b64encode(zlib.compress(bytes(10_000_000))).decode()
    for damaged, message in [("AAAA", "cannot be read"), (unfolding, "not of 32x32 pixels")]:
        with pytest.raises(ValueError, match=f"the record's depth map .*{message}"):
            dataclasses.replace(record, depth=damaged).depth_map()
    with pytest.raises(ValueError, match="depth: not the map of the request"):
        pipeline.generate([request], [made.picture], depths=[depth + 0.1])
    (both, mirrored) = pipeline(
        [image, image[:, ::-1].copy()], depth=[filmed.depth, filmed.depth[:, ::-1].copy()], **options
    )
    assert np.abs(both.frames.astype(int) - made.frames).max() <= 1
    assert not np.array_equal(both.frames, mirrored.frames)


def test_later_windows_and_other_condition_frames_see_the_same_scene(pipeline: Pipeline, filmed: Filmed) -> None:
    image = filmed.frames[0]
    (long,) = pipeline(image, depth=filmed.depth, frames=6, overlap=2, trajectory="pan_right", extent=0.3, **SHAPED)
    assert long.preview is not None
    assert long.preview.shape == long.frames.shape == (6, SIZE, SIZE, 3)
    path = choose("pan_right", frames=6, extent=0.3)
    start = Trajectory(world_to_camera=path.world_to_camera[:FRAMES], intrinsics_normalized=None)
    (first,) = pipeline(image, depth=filmed.depth, trajectory=start, **SHAPED)
    assert np.array_equal(long.frames[:FRAMES], first.frames)
    (last,) = pipeline(image, depth=filmed.depth, trajectory=start, condition_frame=FRAMES - 1, **SHAPED)
    assert last.preview is not None
    seen = last.preview[-1].any(axis=-1)
    shown = pipeline.clip(last.request, last.picture).video[0, :, 0]
    assert seen.mean() > 0.95
    apart = (as_video(last.preview)[:, -1] - shown).abs().amax(dim=0)
    assert apart[torch.from_numpy(seen)].max() < 0.01


def test_a_network_estimates_what_is_not_given(
    pipeline: Pipeline, filmed: Filmed, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = DepthAnythingV2(
        width=32, num_heads=2, layers=4, read_blocks=[0, 1, 2, 3], head_width=8, head_channels=[8, 8, 8, 8],
        max_depth_metres=20.0,
    )  # fmt: skip
    calls, estimate = [], network.metric_depth

    def counted(images: Tensor) -> Tensor:
        calls.append(images)
        return estimate(images)

    monkeypatch.setattr(network, "metric_depth", counted)
    other = Pipeline(pipeline.source, depth_network=network, offload=True)
    made, _ = other(filmed.frames[0], trajectory=["pan_left", "pan_right"], extent=0.2, **SHAPED | {"seed": [1, 2]})
    assert len(calls) == 1
    assert made.depth is not None
    assert made.depth.shape == (SIZE, SIZE)
    assert 0 < made.depth.min() < made.depth.max() < 20
    (again,) = other.generate([made.request], [made.picture])
    assert np.array_equal(again.frames, made.frames)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metres_per_unit": None}, r"noise_shaping: the scene is in metres, .* \(scale policy: that of the shards\)"),
        ({"noise_shaping": 1000}, "noise_shaping: got 1000, choose a timestep from 0 to 999"),
        ({"spacing": "quad", "noise_shaping": 900}, "got 900, choose .* 0 to 80[01], the highest that spacing=quad"),
        ({"metres_per_unit": 0.0}, "metres_per_unit: got 0.0, expected a number above 0"),
        ({"depth": None}, "depth: this model has no depth network; give a depth map"),
        ({"depth": np.ones((96, 96))}, "depth: 96x96 .* for an image of 96x160; give the depth of the whole image"),
        ({"depth": np.zeros((96, 160))}, "depth: no value is finite and above 0"),
        ({"depth": 3}, "depth: got int; give a file, or metres"),
        ({"depth": [np.ones((96, 160))] * 2}, "depth: 2 maps for 1 images"),
    ],
)  # fmt: skip
def test_scenes_that_cannot_be_are_named(
    pipeline: Pipeline, filmed: Filmed, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(filmed.frames[0], **{"depth": filmed.depth, **SHAPED, **settings})


def test_the_unit_of_the_poses(pipeline: Pipeline, filmed: Filmed) -> None:
    """A model trained in half metres sees a path of one metre as 2."""
    seen = picture(filmed.frames[0])
    (request,) = pipeline.requests([("", seen)], metres_per_unit=0.5)
    assert pipeline.clip(request, seen).cameras.translation_scale.unique().tolist() == [2.0]
    metric = dataclasses.replace(pipeline.source.defaults, scale_policy="metric")
    trained_in_metres = Pipeline(dataclasses.replace(pipeline.source, defaults=metric))
    trained_in_metres.requests([("", seen)], noise_shaping=900)
    (request,) = trained_in_metres.requests([("", seen)], metres_per_unit=0.5)
    assert pipeline.clip(request, seen).cameras.translation_scale.unique().tolist() == [1.0]


def test_depth_is_framed_as_its_image_without_mixing() -> None:
    depth = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 0.0, 7.0, 8.0]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    assert framed_depth(depth, (32, 64), (32, 32)).unique().tolist() == [0, 2, 3, 7]
    assert open_depth(depth.double().numpy()).dtype == torch.float32


def test_points_between_surfaces_are_left_out() -> None:
    depth = torch.full((24, 32), 2.0)
    depth[:, 16:] = 4.0
    depth[10, 15:17] = 3.0
    depth[3, 3] = 0.0
    intrinsics = torch.tensor([30.0, 30.0, 16.0, 12.0], dtype=torch.float64)
    cleaned = without_outliers(depth, intrinsics, "none")
    assert (cleaned == 0).nonzero().tolist() == [[3, 3], [10, 15], [10, 16]]
    behind_a_door = torch.full((24, 32), 2.0)
    behind_a_door[8:14, 10:16] = 20.0
    assert torch.equal(without_outliers(behind_a_door, intrinsics, "none"), behind_a_door)
    assert (without_outliers(behind_a_door, intrinsics, "published")[8:14, 10:16] == 0).all()


def test_published_rules() -> None:
    """Pixel centres at whole numbers; black pixels of the image are unknown; frame 0 takes the image's latents."""
    image = torch.full((3, 16, 16), 0.3)
    image[:, 8:] = -1.0
    clip = image_clip(
        image, choose("zoom_in", frames=2, extent=1.0), caption="", resolution=(16, 16), portrait="crop",
        field_of_view_degrees=None, frame_stride=1, frames_per_second=None, seed=0, compatibility="none",
    )  # fmt: skip
    scenes = {
        name: render_scene(clip, torch.full((16, 16), 2.0), condition_frame=0, compatibility=name)
        for name in ("none", "published")
    }
    assert bool(scenes["none"].covered.all())
    assert bool(scenes["published"].covered[0, 1:8].all())
    assert not bool(scenes["published"].covered[0, 8:].any())
    # Twice as large about the centre; half a pixel further on for the published rule.
    lowest = {name: int((scene.video[0, 1] > 0).any(dim=1).nonzero().max()) for name, scene in scenes.items()}
    assert lowest == {"none": 7, "published": 6}
    assert edit("none", frame=1).scene[0, 0].flatten(1).unique(dim=1).tolist() == [[0.0], [1.0]]
    assert edit("published", frame=1).scene[0, 0].flatten(1).unique(dim=1).tolist() == [[1.0], [0.0]]
    assert edit("none", frame=1).mask[0, 0].amax(dim=(1, 2)).tolist() == [0.0, 1.0]
    assert edit("published", frame=1).mask.max() == 0
    assert (edit("none", frame=1).scale, edit("published", frame=1).scale) == (1.0, None)


def edit(compatibility: Any, *, frame: int) -> NoiseShaping:
    return noise_shaping(
        torch.zeros(1, 4, 2, 4, 4),
        torch.zeros(1, 2, 16, 16, dtype=torch.bool),
        torch.ones(1, 4, 2, 4, 4),
        rule=NoiseShapingRule(minimum_timestep=0, mask=SceneMaskRule()),
        condition_frame=torch.tensor([frame]),
        compatibility=compatibility,
    )
