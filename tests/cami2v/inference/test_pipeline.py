"""`Pipeline`: one image to a video, repeatably, whatever it was loaded from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cami2v.draws import Draws
from cami2v.encoders.space_to_depth import SpaceToDepth
from cami2v.inference import Pipeline
from cami2v.inference.clip_video import to_frames
from cami2v.inference.clips import windows
from cami2v.inference.decoding import decode
from cami2v.inference.exported import export
from cami2v.inference.image_clip import choose_trajectory
from cami2v.inference.pipeline import Generated, SamplingCancelledError
from cami2v.inference.placed_towers import PlacedFirstStage
from cami2v.inference.request import Request
from cami2v.inference.sampler_settings import SamplerSettings
from cami2v.inference.sampling_settings import SamplingSettings
from cami2v.inference.settings import open_picture
from cami2v.trajectories.trajectory import Trajectory
from tests.launch.untrained import random_run

FRAMES, SIZE = 4, 32
SMALL = [
    f"data.frames={FRAMES}", f"data.resolution=[{SIZE},{SIZE}]", "sampler.steps=2", "backbone.widths=[32,64]",
    "backbone.head_width=16", "camera.pose_encoder.num_heads=2",
]  # fmt: skip


SCENE_KEYS = ("metres_per_unit", "noise_shaping", "depth_sha256", "paste_image")

STILL = Trajectory(world_to_camera=torch.eye(4).double()[None, :3], intrinsics_normalized=None)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_run(tmp_path_factory.mktemp("run"), SMALL)


@pytest.fixture(scope="module")
def pipeline(run_folder: Path) -> Pipeline:
    return Pipeline.from_pretrained(run_folder)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)


def levels_apart(one: Generated, other: Generated) -> int:
    return int(np.abs(one.frames.astype(int) - other.frames).max())


def test_a_request_as_json_repeats_its_video_exactly(pipeline: Pipeline, image: np.ndarray) -> None:
    options: dict[str, Any] = {"caption": "a room", "negative_caption": "fog", "trajectory": "dolly_in", "seed": 3}
    (made,) = pipeline(image, **options, camera_guidance=1.5, sampler="unipc", steps=2)
    assert made.frames.shape == (FRAMES, SIZE, SIZE, 3)
    request = Request.from_json(made.request.to_json())
    assert request == made.request
    assert request.sampler.kind == "unipc"
    before_scenes = {k: v for k, v in json.loads(request.to_json()).items() if k not in SCENE_KEYS}
    assert Request.from_json(json.dumps(before_scenes)) == request
    (again,) = pipeline.generate([request], [made.picture])
    assert np.array_equal(again.frames, made.frames)
    changes: list[dict[str, Any]] = [
        {"negative_caption": ""}, {"trajectory": "static", "seed": 4}, {"loop": True}, {"condition_frame": 2},
    ]  # fmt: skip
    for change in changes:
        (other,) = pipeline(image, **options | change, camera_guidance=1.5, sampler="unipc", steps=2)
        assert not np.array_equal(other.frames, made.frames), change


def test_a_filmed_clip_is_animated_as_validation_does(pipeline: Pipeline, image: np.ndarray) -> None:
    (request,) = pipeline.requests([open_picture(image)], trajectory="dolly_in", seed=3)
    clip = pipeline.clip(request, open_picture(image)[1])
    video = pipeline.animate(clip, SamplingSettings().plan(pipeline.facts(), frames=FRAMES))
    assert torch.equal(video, pipeline.model.generate(clip, pipeline.sampler.build()))
    other = pipeline.animate(clip, SamplingSettings(guidance_scale=3.0).plan(pipeline.facts(), frames=FRAMES))
    assert not torch.equal(video, other)


def test_another_image_is_not_taken_for_the_one_of_a_request(pipeline: Pipeline, image: np.ndarray) -> None:
    requests = pipeline.requests([open_picture(image)])
    with pytest.raises(ValueError, match="image given as pixels: its pixels are not those of the request"):
        pipeline.generate(requests, [open_picture(image[::-1].copy())[1]])


def test_batches_and_joint_branches_change_rounding_only(pipeline: Pipeline, image: np.ndarray) -> None:
    together = pipeline([image, image[:, ::-1].copy()], seed=[1, 2], trajectory=["pan_left", "static"])
    alone = pipeline(image[:, ::-1].copy(), seed=2, trajectory="static")
    assert levels_apart(together[1], alone[0]) <= 1
    assert levels_apart(together[0], together[1]) > 1
    split = pipeline([image, image], seed=[1, 2], batch_size=1)
    assert len(split) == 2
    joint = pipeline(image[:, ::-1].copy(), seed=2, trajectory="static", branches="together")
    assert levels_apart(joint[0], alone[0]) <= 1


def test_a_pasted_image_is_kept(pipeline: Pipeline, image: np.ndarray) -> None:
    """The first stage is lossless."""
    for compatibility in ("none", "published"):
        (made,) = pipeline(image, condition_frame=2, paste_image=True, compatibility=compatibility)
        shown = to_frames(pipeline.clip(made.request, made.picture).video[0])[0]
        assert np.array_equal(made.frames[2], shown)
        assert not np.array_equal(made.frames[1], shown)


def test_longer_videos_continue_their_windows(pipeline: Pipeline, image: np.ndarray) -> None:
    seen = []
    (long,) = pipeline(image, frames=7, overlap=2, on_progress=lambda progress: seen.append(progress), seed=5)
    assert long.frames.shape[0] == 7
    assert [progress.step for progress in seen] == list(range(1, 7))
    assert {progress.steps for progress in seen} == {6}
    path = choose_trajectory("orbit_right", frames=7, extent=None)
    start = Trajectory(world_to_camera=path.world_to_camera[:FRAMES], intrinsics_normalized=None)
    (first,) = pipeline(image, trajectory=start, seed=5)
    assert np.array_equal(long.frames[:FRAMES], first.frames)


def test_windows_share_at_least_the_overlap_and_end_with_the_video() -> None:
    assert windows(7, 4, 2) == [range(4), range(2, 6), range(3, 7)]
    assert windows(4, 4, 9) == [range(4)]
    with pytest.raises(ValueError, match="choose 1 to 3 shared ones"):
        windows(7, 4, 4)


def test_it_stops_when_asked(pipeline: Pipeline, image: np.ndarray) -> None:
    asked = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(SamplingCancelledError, match="stopped after 2 of 5 steps"):
        pipeline(image, steps=5, cancel=cancel)


def test_the_image_keeps_its_focal_length_at_its_own_frame(pipeline: Pipeline, image: np.ndarray) -> None:
    opened = open_picture(image)
    (still,) = pipeline.requests([opened], trajectory="static")
    (zooming,) = pipeline.requests([opened], trajectory="dolly_zoom_in", condition_frame=2)
    own, changing = (pipeline.clip(each, opened[1]).cameras.intrinsics_pixels[0] for each in (still, zooming))
    torch.testing.assert_close(changing[2], own[2])
    assert changing[0, 0] > changing[1, 0] > changing[2, 0] > changing[3, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frame": 3}, "pipeline.frame: no such key .* did you mean 'frames'"),
        ({"resolution": (33, 32)}, "resolution: got 33x32 .* multiples of 16"),
        ({"condition_frame": 4}, "condition_frame: got 4, choose 0 to 3"),
        ({"frames": 9, "overlap": 4}, "overlap: got 4; 9 frames are made in windows of 4"),
        ({"frames": 0}, "frames: got 0"),
        ({"end_image": 1}, "end_image: this model is conditioned on one image only"),
        ({"seed": [1, 2], "caption": ["a", "b", "c"]}, "lists of different lengths: 3 of caption, 2 of seed"),
        ({"sampler": "dpm_solver", "eta": 1.0}, "eta=1.0: sampler=dpm_solver; eta belongs to sampler=ddim"),
        ({"guidance_scale": 1.0, "camera_guidance": 2.0}, "camera_scale is 2.0 while .* which switches all"),
        ({"trajectory": STILL}, "1 cameras for 4 frames"),
    ],
)  # fmt: skip
def test_impossible_settings_are_named(
    pipeline: Pipeline, image: np.ndarray, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(image, **settings)


def test_an_exported_folder_is_complete(pipeline: Pipeline, image: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    export(pipeline.source, folder, card="# A model\n")
    (made,) = pipeline(image, seed=1)
    (loaded,) = Pipeline.from_pretrained(folder)(image, seed=1)
    assert np.array_equal(loaded.frames, made.frames)
    again = tmp_path / "again"
    export(pipeline.source, again, card="# A model\n")
    for each in folder.iterdir():
        assert each.read_bytes() == (again / each.name).read_bytes()
    with pytest.raises(ValueError, match="exists; choose another folder"):
        export(pipeline.source, folder, card="")
    with pytest.raises(ValueError, match="an exported folder is complete; leave out experiment"):
        Pipeline.from_pretrained(folder, experiment="cami2v_256")
    path = folder / "pipeline.json"
    description = json.loads(path.read_text())
    description["config"]["camera"]["_target_"] = "subprocess.Popen"
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="names subprocess.Popen, which is not of cami2v; not loaded"):
        Pipeline.from_pretrained(folder)


def test_damaged_exports_are_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    export(pipeline.source, folder, card="")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(ValueError, match="not the file that pipeline.json was written with"):
        Pipeline.from_pretrained(folder)


def test_half_precision_and_offload_are_near(run_folder: Path, pipeline: Pipeline, image: np.ndarray) -> None:
    half = Pipeline.from_pretrained(run_folder, precision="bf16", offload=True)
    assert next(half.model.backbone.parameters()).dtype == torch.bfloat16
    (made,), (expected,) = half(image, seed=1), pipeline(image, seed=1)
    assert made.request.precision == "bf16"
    assert levels_apart(made, expected) > 0
    assert np.abs(made.frames.astype(int) - expected.frames).mean() < 4


def test_towers_on_other_devices_change_nothing(run_folder: Path, pipeline: Pipeline, image: np.ndarray) -> None:
    """`cpu:0` is another name, so that everything is moved, to where it was."""
    spread = {"text_encoder": "cpu:0", "image_encoder": "cpu:0", "first_stage": "cpu:0"}
    apart = Pipeline.from_pretrained(run_folder, device="cpu", device_map=spread)
    assert isinstance(apart.model.first_stage, PlacedFirstStage)
    assert apart.model.backbone is apart.source.model.backbone
    options: dict[str, Any] = {"seed": 1, "frames": 6, "overlap": 2, "decode_frames": 3}
    assert np.array_equal(apart(image, **options)[0].frames, pipeline(image, **options)[0].frames)
    away = Pipeline.from_pretrained(run_folder, device="cpu", device_map={"text_encoder": "meta", "backbone": "cpu:0"})
    assert away.device == torch.device("cpu:0")
    assert {value.device.type for value in away.model.text_encoder.parameters()} == {"meta"}
    assert {value.device.type for value in away.model.image_encoder.parameters()} == {"cpu"}


def test_what_enters_a_tower_is_moved_to_it_and_what_leaves_it_home() -> None:
    meta, cpu = torch.device("meta"), torch.device("cpu")
    video = torch.zeros(1, 3, 2, 8, 8)
    there = PlacedFirstStage(SpaceToDepth(factor=4), meta, meta)
    assert there.decode(there.encode(video, Draws(torch.tensor([0])))).device == meta
    assert PlacedFirstStage(SpaceToDepth(factor=4), cpu, meta).moments(video).device == meta
    assert Draws(torch.tensor([1])).on("meta").normal("x", (2,)).device == meta


@pytest.mark.parametrize(
    ("device_map", "offload", "message"),
    [
        ({"vae": "cpu"}, False, "device_map.vae: no such part; choose among backbone, first_stage"),
        ({"depth": "gpu"}, False, "device_map.depth=gpu: not a device"),
        ({"first_stage": "cuda:99"}, False, "device_map.first_stage=cuda:99: PyTorch finds"),
        ({"first_stage": "cpu"}, True, "device_map and offload: choose one"),
    ],
)
def test_impossible_device_maps_are_named(
    pipeline: Pipeline, device_map: dict[str, str], offload: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(pipeline.source, device="cpu", device_map=device_map, offload=offload)


def test_decoding_in_parts_changes_nothing_a_first_stage_does_frame_by_frame() -> None:
    first_stage = SpaceToDepth(factor=4)
    latents = torch.randn(2, 48, 5, 9, 7, generator=torch.Generator().manual_seed(0))
    whole = first_stage.decode(latents)
    assert torch.equal(decode(first_stage, latents, frames_at_once=2), whole)
    torch.testing.assert_close(decode(first_stage, latents, tile=4), whole)
    with pytest.raises(ValueError, match="decode_tile=3"):
        decode(first_stage, latents, tile=3)


def test_samplers_are_written_down_and_made_again() -> None:
    ddim = SamplerSettings(
        kind="ddim", steps=9, spacing="uniform_trailing", guidance_scale=7.5, guidance_rescale=0.7, camera_guidance=1.0,
        camera_guidance_schedule="cosine", eta=1.0, temperature=1.0, order=None,
    )  # fmt: skip
    assert SamplerSettings.of(ddim.build()) == ddim
    solver = ddim.changed(kind="dpm_solver", steps=5)
    assert (solver.kind, solver.steps, solver.spacing, solver.eta) == ("dpm_solver", 5, "quad_trailing", None)
    assert SamplerSettings.of(solver.build()) == solver
    assert solver.changed(kind="unipc", spacing="uniform").spacing == "uniform"
    assert ddim.changed(eta=0.0).eta == 0.0
