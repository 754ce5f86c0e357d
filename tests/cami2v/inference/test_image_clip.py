"""From an image and a trajectory to a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cami2v.batch import ClipBatch
from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.guidance import Guidance
from cami2v.inference.image_clip import choose_trajectory, image_clip, read_image
from launch.build import build_model
from launch.compose import compose_config


def clip(image: torch.Tensor, **options: Any) -> ClipBatch:
    settings: dict[str, Any] = {
        "trajectory": choose_trajectory("static", frames=3, extent=1.0), "caption": "", "resolution": (20, 32),
        "portrait": "crop", "field_of_view_degrees": None, "frame_stride": 1, "frames_per_second": 8.0, "seed": 0,
        "compatibility": "none",
    }  # fmt: skip
    return image_clip(image, **(settings | options))


def test_a_wide_image_is_cropped_and_the_camera_follows() -> None:
    image = torch.linspace(-1, 1, 80).repeat(3, 40, 1)
    trajectory = choose_trajectory("truck_right", frames=4, extent=0.5)
    batch = clip(image, trajectory=trajectory, resolution=(20, 20), field_of_view_degrees=90.0)
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
    own = clip(image, trajectory=trajectory, resolution=(36, 64))
    assert own.cameras.intrinsics_pixels[0, 0].tolist() == pytest.approx([32, 32.4, 32, 18])
    told = clip(image, trajectory=trajectory, resolution=(36, 64), field_of_view_degrees=90.0)
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
    with pytest.raises(ValueError, match="field_of_view_degrees=180"):
        clip(torch.zeros(3, 8, 8), field_of_view_degrees=180.0)
    with pytest.raises(ValueError, match="field_of_view_degrees=60.0 with compatibility=published"):
        clip(torch.zeros(3, 8, 8), field_of_view_degrees=60.0, compatibility="published")


def test_a_portrait_image_keeps_the_trained_resolution_unless_told_to_swap() -> None:
    image = torch.zeros(3, 90, 60)
    assert clip(image).video.shape[-2:] == (20, 32)
    swapped = clip(image, portrait="swap")
    assert swapped.video.shape[-2:] == (32, 20)
    assert (swapped.cameras.height, swapped.cameras.width) == (32, 20)
    assert clip(torch.zeros(3, 60, 90), portrait="swap").video.shape[-2:] == (20, 32)


def test_an_unknown_camera_sees_90_degrees_along_the_longer_side() -> None:
    tall = clip(torch.zeros(3, 90, 60), resolution=(30, 20)).cameras.intrinsics_pixels[0, 0]
    assert tall.tolist() == pytest.approx([15, 15, 10, 15])
    wide = clip(torch.zeros(3, 60, 90), resolution=(20, 30)).cameras.intrinsics_pixels[0, 0]
    assert wide.tolist() == pytest.approx([15, 15, 15, 10])


def test_the_published_guess_differs_where_the_crop_is_uneven() -> None:
    image = torch.linspace(-1, 1, 45).repeat(3, 20, 1)
    ours, published = (clip(image, resolution=(20, 20), compatibility=each) for each in ("none", "published"))
    # 45 columns, 12 cut off on the left and 13 on the right: the image's centre is no longer the crop's.
    assert ours.cameras.intrinsics_pixels[0, 0].tolist() == pytest.approx([22.5, 22.5, 10.5, 10])
    assert published.cameras.intrinsics_pixels[0, 0].tolist() == pytest.approx([22.5, 22.5, 10, 10])
    levels = (published.video + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert (published.video - ours.video).abs().max() <= 0.5 / 127.5 + 1e-6


def test_a_second_image_is_the_last_frame_only() -> None:
    batch = clip(torch.zeros(3, 20, 32), last_image=torch.ones(3, 50, 50))
    assert batch.video[0, 0, :, 0, 0].tolist() == [0, 0, 1]


def test_without_a_rate_the_model_is_told_the_videos_own() -> None:
    assert clip(torch.zeros(3, 20, 32), frames_per_second=None, frame_stride=3).frames_per_second.item() == (
        pytest.approx(9.99)
    )


def test_images_span_minus_one_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 128, 255]]], dtype=np.uint8)).save(tmp_path / "pixel.png")
    assert read_image(tmp_path / "pixel.png").flatten().tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)


def test_a_swapped_resolution_is_sampled_with_masks_at_every_level() -> None:
    # Levels go by their downsample factor; the published demo looks them up by the image height and loses them.
    small = ["data.frames=3", "data.resolution=[32,64]", "backbone.widths=[32,64]", "backbone.head_width=16"]
    model = build_model(compose_config("train", ["camera=cami2v", *small])).eval()
    guidance = Guidance(scale=1.0, rescale=0.0, camera_scale=1.0, camera_schedule="constant")
    sampler = DDIMSampler(steps=1, spacing="uniform_trailing", eta=0.0, temperature=1.0, guidance=guidance)
    trajectory = choose_trajectory("truck_right", frames=3, extent=0.5)
    batch = clip(torch.zeros(3, 90, 45), trajectory=trajectory, resolution=(32, 64), portrait="swap")
    assert model.generate(batch, sampler).shape == (1, 3, 3, 64, 32)
