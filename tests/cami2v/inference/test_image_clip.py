"""From an image and a trajectory to a batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cami2v.inference.image_clip import choose_trajectory, image_clip, read_image


def test_a_wide_image_is_cropped_and_the_camera_follows() -> None:
    image = torch.linspace(-1, 1, 80).repeat(3, 40, 1)
    trajectory = choose_trajectory("truck_right", frames=4, extent=0.5)
    batch = image_clip(
        image, trajectory, caption="x", resolution=(20, 20), field_of_view_degrees=90.0, frame_stride=3,
        frames_per_second=8.0, seed=7,
    )  # fmt: skip
    assert batch.video.shape == (1, 3, 4, 20, 20)
    assert torch.equal(batch.video[:, :, 0], batch.video[:, :, 3])
    # 90 degrees over 80 columns are a focal length of 40, halved by the resize to 20 rows; the crop keeps the centre.
    expected = torch.tensor([20.0, 20.0, 10.0, 10.0], dtype=torch.float64)
    torch.testing.assert_close(batch.cameras.intrinsics_pixels[0, 0], expected)
    # A quarter of the width is cut off on each side.
    assert float(batch.video[0, 0, 0, 0, 0]) == pytest.approx(-0.5, abs=0.05)
    centres = torch.linalg.inv(
        torch.cat([batch.cameras.world_to_camera[0], torch.tensor([[[0, 0, 0, 1.0]]]).double().repeat(4, 1, 1)], 1)
    )[:, :3, 3]
    torch.testing.assert_close(centres[-1], torch.tensor([0.5, 0, 0], dtype=torch.float64))


def test_a_trajectory_file_brings_its_intrinsics(tmp_path: Path) -> None:
    rows = [f"{frame} 0.5 0.9 0.5 0.5 0 0 1 0 0 {-0.1 * frame} 0 1 0 0 0 0 1 0" for frame in range(5)]
    path = tmp_path / "path.txt"
    path.write_text("address\n" + "\n".join(rows) + "\n")
    trajectory = choose_trajectory(str(path), frames=3, extent=2.0)
    torch.testing.assert_close(trajectory.world_to_camera[:, 0, 3], torch.tensor([0, -0.4, -0.8]).double())
    image = torch.zeros(3, 36, 64)
    options = {"caption": "", "resolution": (36, 64), "frame_stride": 1, "frames_per_second": 8.0, "seed": 0}
    own = image_clip(image, trajectory, field_of_view_degrees=None, **options)  # type: ignore[arg-type]  # mixed values
    assert own.cameras.intrinsics_pixels[0, 0].tolist() == pytest.approx([32, 32.4, 32, 18])
    told = image_clip(image, trajectory, field_of_view_degrees=90.0, **options)  # type: ignore[arg-type]  # mixed values
    assert told.cameras.intrinsics_pixels[0, 0].tolist() == pytest.approx([32, 32, 32, 18])


def test_wrong_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"image=.*no such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(ValueError, match=r"trajectory=orbit: neither a file nor a preset.*orbit_left"):
        choose_trajectory("orbit", frames=3, extent=1.0)
    (tmp_path / "path.json").write_text(json.dumps([[1, 2, 3]]))
    with pytest.raises(ValueError, match="12 numbers"):
        choose_trajectory(str(tmp_path / "path.json"), frames=3, extent=1.0)
    trajectory = choose_trajectory("static", frames=2, extent=1.0)
    with pytest.raises(ValueError, match="field_of_view_degrees=180"):
        image_clip(
            torch.zeros(3, 8, 8), trajectory, caption="", resolution=(8, 8), field_of_view_degrees=180.0,
            frame_stride=1, frames_per_second=8.0, seed=0,
        )  # fmt: skip


def test_images_span_minus_one_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 128, 255]]], dtype=np.uint8)).save(tmp_path / "pixel.png")
    assert read_image(tmp_path / "pixel.png").flatten().tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)
