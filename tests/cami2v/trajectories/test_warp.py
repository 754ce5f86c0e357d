"""The image as other cameras see it: exact where it can be known, black where it cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cami2v.inference.image_clip import field_of_view_intrinsics
from cami2v.trajectories.choose import choose
from cami2v.trajectories.preview import warp_along
from cami2v.trajectories.trajectory import zoomed
from cami2v.trajectories.warp import Warped, cloud, read_depth, warp
from data_pipeline.synthetic.render import render_frame
from data_pipeline.synthetic.surfaces import build_scene
from data_pipeline.synthetic.world import camera_path, intrinsics_pixels, plan_sources
from data_pipeline.synthetic.write import LEVELS, TEXELS_PER_PIXEL_COLUMN
from tests.data_pipeline.synthetic.worlds import small_world

HEIGHT, WIDTH = 48, 64


def own_intrinsics() -> Tensor:
    normalized = field_of_view_intrinsics(90.0, WIDTH, HEIGHT, WIDTH)
    return normalized * torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])


def along(source: object, image: Tensor, depth: Tensor, frames: int = 5, extent: float | None = None) -> Warped:
    path = choose(source, frames=frames, extent=extent)  # type: ignore[arg-type]
    intrinsics = own_intrinsics()
    zoom = torch.ones(frames, dtype=torch.float64) if path.zoom is None else path.zoom
    return warp(image, depth, path.camera_to_world(), zoomed(intrinsics.repeat(frames, 1), zoom), intrinsics)


def picture(seed: int = 0) -> Tensor:
    return torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 1.8 - 0.8


def plane(distance: float) -> Tensor:
    return torch.full((HEIGHT, WIDTH), distance)


def square(before: float, behind: float) -> tuple[Tensor, Tensor]:
    """A white square of 16 x 16 pixels in the middle, before a dark wall with a grey post of 4 columns."""
    image, depth = torch.full((3, HEIGHT, WIDTH), -0.9), plane(behind)
    image[:, :, 8:12] = 0.0
    image[:, 16:32, 24:40], depth[16:32, 24:40] = 1.0, before
    return image, depth


def test_a_static_camera_sees_the_image() -> None:
    seen = along("static", picture(), plane(2.0) + torch.rand(HEIGHT, WIDTH))
    assert bool(seen.covered.all())
    for frame in seen.video.unbind(1):
        torch.testing.assert_close(frame, picture(), rtol=0, atol=1e-6)


def test_a_sideways_camera_shifts_a_plane() -> None:
    """Focal length 32 pixels, distance 2, moved by 1/4: 4 pixels to the left."""
    image = torch.zeros(3, HEIGHT, WIDTH)
    image[:, :, 32] = 1
    seen = along("pan_right", image, plane(2.0), frames=2, extent=0.25)
    assert seen.video[0, 1, 24].argmax() == 28
    assert bool(seen.covered[1, :, : WIDTH - 4].all())
    assert not bool(seen.covered[1, :, WIDTH - 4 :].any())
    assert bool((seen.video[:, 1, :, WIDTH - 4 :] == -1).all())


def test_near_things_hide_far_ones_and_leave_holes() -> None:
    image, depth = square(1.0, 4.0)
    seen = along("pan_right", image, depth, frames=2, extent=0.25)
    row = seen.video[0, 1, 24]
    # The square moves by 8 pixels, the wall by 2; what it hid is unknown.
    assert bool((row[16:32] > 0.99).all())
    assert bool((row[15] < 0.5) & (row[38] < 0.5))
    assert not bool(seen.covered[1, 24, 32:38].any())


@pytest.mark.parametrize("name", ["dolly_zoom_in", "dolly_zoom_out"])
def test_a_dolly_zoom_keeps_the_size_of_the_subject(name: str) -> None:
    image, depth = square(1.0, 3.0)
    seen = along(name, image, depth, frames=7, extent=0.5)
    middle = seen.video[0, :, 24]
    sizes = (middle > 0.5).sum(dim=1)
    areas = (seen.video[0] > 0.5).sum(dim=(1, 2))
    assert sizes.tolist() == [16] * 7
    assert areas.tolist() == [16 * 16] * 7
    posts = seen.video[0, :, 24].abs() < 0.3
    first, last = (torch.nonzero(each).double().mean() for each in (posts[0], posts[-1]))
    # The wall is 3 away: 3 / 2.5 * 0.5 = 0.6 of its size, or 3 / 3.5 * 1.5 = 9 / 7.
    wanted = 32 - (32 - 10) * (0.6 if name == "dolly_zoom_in" else 9 / 7)
    assert first.item() == pytest.approx(9.5, abs=0.5)
    assert last.item() == pytest.approx(wanted - 0.5, abs=1.0)
    plain = along("zoom_in" if name.endswith("in") else "zoom_out", image, depth, frames=7, extent=0.5)
    assert abs(int((plain.video[0, -1, 24] > 0.5).sum()) - 16) >= 4, "without the zoom it would change"


def test_a_warped_frame_is_what_the_world_renders() -> None:
    """The first frame of a synthetic clip moved to its last camera, against the world's own rendering there."""
    world = small_world(path_kinds=("truck",))
    source = plan_sources(world)[0]
    path = torch.from_numpy(camera_path(world, source, source.clips[0]))[[0, -1]]
    intrinsics = intrinsics_pixels(world, source)
    scene = build_scene(source.room_name, round(TEXELS_PER_PIXEL_COLUMN * world.width), LEVELS)
    rendered = [render_frame(scene, pose.numpy(), intrinsics, world.height, world.width, 2) for pose in path]
    first, last = (torch.from_numpy(image).permute(2, 0, 1).float() / 127.5 - 1 for image, _ in rendered)
    own = torch.from_numpy(intrinsics)
    seen = warp(first, torch.from_numpy(rendered[0][1]), torch.linalg.inv(path[0]) @ path, own.repeat(2, 1), own)
    there = seen.covered[1]
    assert 0.6 < there.float().mean() < 1
    error, unmoved = ((each - last).abs().mean(0)[there].mean().item() for each in (seen.video[:, 1], first))
    assert error < 0.1 * unmoved


def test_the_image_is_that_of_the_condition_frame() -> None:
    image, path = picture(), choose("dolly_zoom_in", frames=5, extent=0.4)
    # Its camera is 0.3 ahead of the first, the subject 0.7 ahead of it.
    seen = warp_along(image, plane(0.7), path, condition_frame=3, field_of_view_degrees=None)
    torch.testing.assert_close(seen.video[:, 3], image, rtol=0, atol=1e-6)
    assert (seen.video[:, 0] - image).abs().mean() < 0.1, "a wall at the subject's distance keeps its size"


def test_coming_closer_leaves_no_cracks() -> None:
    seen = along("zoom_in", picture(), plane(1.0), frames=3, extent=0.6)
    assert bool(seen.covered.all())


def test_unknown_depth_is_not_drawn() -> None:
    depth = plane(1.0)
    depth[:, :10], depth[:5] = 0.0, float("nan")
    seen = along("static", picture(), depth, frames=1)
    assert torch.equal(seen.covered[0], torch.isfinite(depth) & (depth > 0))
    with pytest.raises(ValueError, match="depth: no value is finite and above 0"):
        along("static", picture(), plane(0.0))


def test_points_of_a_cloud_lie_at_their_depth() -> None:
    points, colours = cloud(picture(), plane(2.0), own_intrinsics(), most=100)
    assert 60 <= len(points) <= 120
    assert len(colours) == len(points)
    torch.testing.assert_close(points[:, 2], torch.full((len(points),), 2.0, dtype=torch.float64))
    assert points[:, 0].abs().max() < 2


def test_depth_files(tmp_path: Path) -> None:
    values = np.array([[1.0, 2.0], [3.0, 0.0]], np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", depth=values[None], other=values)
    np.savez(tmp_path / "c.npz", anything=values)
    Image.fromarray((values * 1000).astype(np.uint16)).save(tmp_path / "d.png")
    np.savez(tmp_path / "e.npz", depth_millimetres=(values[None] * 1000).astype(np.uint16))
    for name in ("a.npy", "b.npz", "c.npz", "d.png", "e.npz"):
        read = read_depth(tmp_path / name, 4, 6)
        assert read.unique().tolist() == [0, 1, 2, 3]
        assert read[0, 2:4].tolist() == [1, 2], "depths are not mixed"
    np.savez(tmp_path / "two.npz", one=values, other=values)
    np.save(tmp_path / "object.npy", np.array([{}]), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(3))
    (tmp_path / "text.npy").write_text("no")
    for name in ("two.npz", "object.npy", "flat.npy", "text.npy", "absent.npy", "a.exr"):
        with pytest.raises(ValueError, match=f"depth file .*{name}") as raised:
            read_depth(tmp_path / name, 4, 6)
        assert "\n" not in str(raised.value)
