"""`cami2v sample`: what it writes, and what it says of wrong inputs."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cami2v.checkpoints.load import find_weights
from cami2v.inference.output import read_text
from cami2v.inference.record import Record
from cami2v.video import read_frames
from launch.compose import compose_config
from launch.load_model import Source, held_out_stride, load_model
from launch.sample import replay_argument, run
from tests.launch.untrained import random_run, untrained_run

FRAMES, SIZE = 4, 32


SMALL = [f"data.frames={FRAMES}", f"data.resolution=[{SIZE},{SIZE}]", "sampler.steps=2"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained_run(tmp_path_factory.mktemp("run"), SMALL)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "room.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)).save(path)
    return path


def sample(checkpoint: Path, image: Path, output: Path, *overrides: str) -> None:
    places = [f"checkpoint={checkpoint}", f"image={image}", f"output={output}"]
    run(compose_config("sample", [*places, *overrides]))


def test_writes_video_panels_and_plot(checkpoint: Path, image: Path, tmp_path: Path) -> None:
    # An untrained camera changes nothing, which is another test's business.
    chosen = ["trajectory=pan_left", "extent=0.3", "seed=5", "guidance_scale=2", "steps=3", "guards.camera_alive=off"]
    sample(checkpoint, image, tmp_path, *chosen)
    assert read_frames(tmp_path / "room-pan_left-seed5.mp4").shape == (FRAMES, SIZE, SIZE, 3)
    panels = read_frames(tmp_path / "room-pan_left-seed5-side-by-side.mp4")
    assert panels.shape == (FRAMES, 6 * SIZE, 3 * 6 * SIZE + 8, 3)
    assert Image.open(tmp_path / "room-pan_left-seed5-trajectory.png").width > 100


def test_methods_trajectories_and_seeds_make_a_grid_and_replay_repeats_its_videos(
    checkpoint: Path, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alive = random_run(tmp_path / "run", [*SMALL, "camera=motionctrl"])
    methods = f"methods={{first: {checkpoint}, second: {alive}}}"
    out = tmp_path / "out"
    chosen = ["trajectory=[pan_left,static]", "seed=[1,2]", "guards.camera_alive=off", "side_by_side=false"]
    run(compose_config("sample", [methods, f"image={image}", f"output={out}", "formats=[mp4,gif]", *chosen]))
    assert len(list(out.glob("*seed*.mp4"))) == len(list(out.glob("*seed*.gif"))) == 8
    grid = read_frames(out / "room-grid.mp4")
    assert grid.shape[0] == FRAMES
    assert grid.shape[1] > 4 * 192
    assert 2 * 192 < grid.shape[2] < 3 * 192
    video = out / "second-room-pan_left-seed2.mp4"
    image.rename(image.with_suffix(".moved"))
    with caplog.at_level(logging.INFO):
        run(compose_config("sample", [f"replay={video}", f"output={tmp_path}", "side_by_side=false"]))
    image.with_suffix(".moved").rename(image)
    assert "the frames are identical" in caplog.text
    again = tmp_path / "second-room-pan_left-seed2-replay.mp4"
    assert np.array_equal(read_frames(again), read_frames(video))
    with pytest.raises(ValueError, match="its weights are not those that made the video"):
        run(compose_config("sample", [f"replay={video}", f"checkpoint={checkpoint}", f"output={tmp_path}"]))


def test_replay_is_written_as_other_programs_write_it() -> None:
    assert replay_argument(["--replay", "a b.mp4", "seed=1"]) == ["replay='a b.mp4'", "seed=1"]
    assert replay_argument(["x=1", "--replay=a.mp4"]) == ["x=1", "replay='a.mp4'"]
    assert replay_argument(["replay=a.mp4"]) == ["replay=a.mp4"]


def test_another_sampler_takes_the_place_of_the_runs(checkpoint: Path, image: Path, tmp_path: Path) -> None:
    chosen = ["sampler=unipc", "sampler.steps=2", "guards.camera_alive=off", "side_by_side=false"]
    sample(checkpoint, image, tmp_path, *chosen)
    (path,) = tmp_path.glob("*.mp4")
    found = Record.from_json(read_text(path), path).request.sampler
    assert (found.kind, found.steps, found.spacing, found.guidance_scale) == ("unipc", 2, "quad_trailing", 7.5)


def test_a_camera_that_changes_nothing_is_refused_before_anything_is_written(
    checkpoint: Path, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=f"checkpoint={checkpoint}: THE CAMERA CHANGES NOTHING"):
        sample(checkpoint, image, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    sample(checkpoint, image, tmp_path / "warned", "guards.camera_alive=warn")
    assert "THE CAMERA CHANGES NOTHING" in caplog.text
    assert (tmp_path / "warned" / "room-orbit_right-seed0.mp4").exists()


def test_a_working_camera_may_stand_still(image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    alive = random_run(tmp_path / "run", SMALL)
    with caplog.at_level(logging.INFO):
        sample(alive, image, tmp_path, "trajectory=static")
    assert "the camera is alive: relative change of the prediction 0 stationary, 0 shuffled, " in caplog.text
    assert (tmp_path / "room-static-seed0.mp4").exists()


@pytest.mark.parametrize(
    ("settings", "stride"),
    [("experiment=cami2v_512", 8), ("data.frame_stride=3", 3), ("data.frame_stride=[1,10]", 5)],
)
def test_a_model_is_told_the_stride_of_its_held_out_clips(settings: str, stride: int) -> None:
    assert held_out_stride(compose_config("train", [settings])) == stride


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("guards.camera_alive=maybe", "sample.guards.camera_alive: got 'maybe'"),
        ("trajectory=orbit", "trajectory=orbit: neither a file nor a preset"),
        ("image=none.png", "image=none.png: no such file"),
        ("checkpoint=nowhere", "checkpoint=nowhere: does not exist; give a run folder"),
        ("steps=0", "steps: got 0, expected a number above 0"),
        ("extent=far", "sample.extent: got 'far'"),
        ("portrait=rotate", "sample.portrait: got 'rotate'"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(
    checkpoint: Path, image: Path, tmp_path: Path, override: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sample(checkpoint, image, tmp_path / "out", override)
    assert not (tmp_path / "out").exists()


def test_the_average_is_sampled_where_it_is_asked_for_and_there(image: Path, tmp_path: Path) -> None:
    folder = random_run(tmp_path / "run", SMALL)
    trained = find_weights(folder)
    with pytest.raises(ValueError, match=r"weights=ema, but there is no ema.safetensors \(runs have one with ema="):
        sample(folder, image, tmp_path / "out", "weights=ema")
    average = {name: value * 0.5 for name, value in load_file(trained).items()}
    save_file(average, trained.with_name("ema.safetensors"))
    chosen: dict[Literal["trained", "ema"], dict[str, torch.Tensor]] = {"ema": average, "trained": load_file(trained)}
    for which, expected in chosen.items():
        model = load_model(source(trained.parent, which)).model
        assert all(torch.equal(model.get_parameter(name).cpu(), value) for name, value in expected.items())
    record = {"files": {"ema.safetensors": {"bytes": 1, "sha256": "0" * 64}}}
    trained.with_name("trainer.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"ema.safetensors: its SHA-256 is not that of the file that was written"):
        load_model(source(folder, "ema"))


def source(checkpoint: Path, weights: Literal["trained", "ema"]) -> Source:
    return Source(
        checkpoint=str(checkpoint), from_experiment=None, overrides=(), base=None, load_report=None, attention=None,
        weights=weights,
    )  # fmt: skip
