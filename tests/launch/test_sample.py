"""`cami2v sample`: what it writes, and what it says of wrong inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cami2v.video import read_frames
from launch.compose import compose_config
from launch.sample import run
from tests.launch.untrained import untrained_run

FRAMES, SIZE = 4, 32


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = [f"data.frames={FRAMES}", f"data.resolution=[{SIZE},{SIZE}]", "sampler.steps=2"]
    return untrained_run(tmp_path_factory.mktemp("run"), small)


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


@pytest.mark.parametrize(
    ("override", "message"),
    [
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
