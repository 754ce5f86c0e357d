from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cami2v.geometry import epipolar
from cami2v.geometry.cameras import intrinsic_matrix, invert_pose
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions, epipolar_mask, fundamental_matrices
from cami2v.trajectories.presets import preset

HEIGHT, WIDTH, DOWNSAMPLE, FRAMES = 32, 48, 8, 3
ROWS, COLUMNS = HEIGHT // DOWNSAMPLE, WIDTH // DOWNSAMPLE
CELLS = ROWS * COLUMNS


def moving_cameras() -> tuple[Tensor, Tensor]:
    orbit = preset("orbit_right", FRAMES, 0.5)
    orbit[:, 2, 3] += torch.tensor([0.0, 0.2, 0.5])
    intrinsics = torch.tensor([40.0, 42.0, 23.5, 16.5]).expand(1, FRAMES, 4).clone()
    return orbit[None].float(), intrinsics


def noise(frames: int = FRAMES) -> Tensor:
    return torch.randn(1, frames, frames, 3, generator=torch.Generator().manual_seed(3))


def build(poses: Tensor, intrinsics: Tensor, perturbation: Tensor | None, **options: bool) -> Tensor:
    mask = epipolar_mask(poses, intrinsics, HEIGHT, WIDTH, DOWNSAMPLE, perturbation, EpipolarOptions(**options))
    frames = poses.shape[1]
    assert mask.shape == (1, frames * CELLS, frames * CELLS)
    return mask.reshape(frames, CELLS, frames, CELLS)


def cell_centre(cell: int) -> Tensor:
    x, y = cell % COLUMNS, cell // COLUMNS
    return torch.tensor([x * DOWNSAMPLE + 3.5, y * DOWNSAMPLE + 3.5, 1.0], dtype=torch.float64)


def test_mask_equals_brute_force() -> None:
    poses, intrinsics = moving_cameras()
    mask = build(poses, intrinsics, None)
    matrices, threshold = intrinsic_matrix(intrinsics[0].double()), DOWNSAMPLE * math.sqrt(2) / 2
    for i, j in ((0, 1), (1, 0), (2, 1)):
        # Two points of the query's viewing ray, seen by the other camera, span its epipolar line.
        transform = invert_pose(poses[0, j].double()) @ poses[0, i].double()
        for query in range(CELLS):
            ray = torch.linalg.inv(matrices[i]) @ cell_centre(query)
            near, far = (matrices[j] @ (transform[:3, :3] @ (ray * z) + transform[:3, 3]) for z in (1.0, 3.0))
            line = torch.linalg.cross(near, far)
            line = line / line[:2].norm()
            for key in range(CELLS):
                distance = torch.dot(line, cell_centre(key)).abs().item()
                if abs(distance - threshold) > 1e-3:
                    assert mask[i, query, j, key].item() == (distance < threshold)


def test_mask_does_not_depend_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    poses, intrinsics = moving_cameras()
    whole = build(poses, intrinsics, noise())
    monkeypatch.setattr(epipolar, "CHUNK_ELEMENTS", 1)
    assert torch.equal(build(poses, intrinsics, noise()), whole)


def test_perturbation_touches_same_frame_pairs_only() -> None:
    poses, intrinsics = moving_cameras()
    plain = fundamental_matrices(poses, intrinsics, perturbation=None)
    perturbed = fundamental_matrices(poses, intrinsics, perturbation=noise())
    same = torch.eye(FRAMES, dtype=torch.bool)
    assert torch.equal(plain[:, ~same], perturbed[:, ~same])
    assert (plain[:, same] == 0).all()
    assert (perturbed[:, same].flatten(2).norm(dim=-1) > 0).all()
    own_pixel = build(poses, intrinsics, noise()).diagonal(dim1=0, dim2=2).diagonal(dim1=0, dim2=1)
    assert own_pixel.all()


def test_rotating_camera_sees_nothing_without_perturbation_and_stripes_with_it() -> None:
    poses, intrinsics = preset("look_left", FRAMES, 0.3)[None].float(), moving_cameras()[1]
    assert not build(poses, intrinsics, None).any()
    density = build(poses, intrinsics, noise()).float().mean().item()
    assert 0.05 < density < 0.6


def test_zooming_camera_uses_each_frames_own_intrinsics() -> None:
    poses, intrinsics = moving_cameras()
    intrinsics[0, :, :2] *= torch.tensor([1.0, 1.4, 1.9])[:, None]
    point = torch.tensor([0.1, -0.05, 1.3, 1.0], dtype=torch.float64)
    seen = [invert_pose(pose.double()) @ point for pose in poses[0]]
    pixels = [intrinsic_matrix(k.double()) @ (p[:3] / p[2]) for k, p in zip(intrinsics[0], seen, strict=True)]
    right = fundamental_matrices(poses, intrinsics, perturbation=None)[0]
    published = fundamental_matrices(poses, intrinsics, perturbation=None, key_intrinsics_on_both_sides=True)[0]
    for i, j in ((0, 2), (2, 0), (1, 2)):
        assert (pixels[j] @ right[i, j] @ pixels[i]).abs() < 1e-3 * right[i, j].norm()
        assert (pixels[j] @ published[i, j] @ pixels[i]).abs() > 0.1 * published[i, j].norm()


def test_options() -> None:
    rotating, intrinsics = preset("look_left", FRAMES, 0.3)[None].float(), moving_cameras()[1]
    assert build(rotating, intrinsics, None, hybrid=True).all()
    assert build(rotating, intrinsics, None, hybrid_v2=True).all()
    moving = moving_cameras()[0]
    plain = build(moving, intrinsics, noise())
    same = torch.eye(FRAMES, dtype=torch.bool)
    only_self = build(moving, intrinsics, noise(), only_self_pixel_on_current_frame=True)
    every = build(moving, intrinsics, noise(), current_frame_as_register_token=True)
    both = build(
        moving, intrinsics, noise(), only_self_pixel_on_current_frame=True, current_frame_as_register_token=True
    )
    blocks = [mask.permute(0, 2, 1, 3) for mask in (plain, only_self, every, both)]
    assert torch.equal(blocks[1][~same], blocks[0][~same])
    assert torch.equal(blocks[1][same], torch.eye(CELLS, dtype=torch.bool).expand(FRAMES, CELLS, CELLS))
    assert blocks[2][same].all()
    assert torch.equal(blocks[3], blocks[2])


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (5, 16), (16, 5), (1, 7), (1, 1)])
@pytest.mark.parametrize("downsample", [8, 5])
def test_lines_without_a_cell_are_found_from_the_cells_beside_them(rows: int, columns: int, downsample: int) -> None:
    grid = CellGrid(frames=1, height=rows * downsample, width=columns * downsample, downsample=downsample)
    generator = torch.Generator().manual_seed(rows * columns)
    angle = torch.cat([torch.arange(-4, 5) * math.pi / 4, 2 * math.pi * torch.rand(3000, generator=generator)])
    # Some of them pass just outside, at the edge of the band.
    reach = math.hypot(grid.width, grid.height)
    offset = reach * (torch.rand(angle.shape, generator=generator) * 2 - 1)
    lines = torch.stack([angle.cos(), angle.sin(), -offset], dim=-1)[:, None]
    lines[7] = float("nan")
    expected = epipolar._near_lines(lines, grid).any(dim=-1)
    assert torch.equal(epipolar.near_any_cell(lines, grid), expected)
    assert 0.1 < expected.float().mean() < 0.9


def test_too_small_an_image_is_refused() -> None:
    poses, intrinsics = moving_cameras()
    with pytest.raises(ValueError, match="downsample 64"):
        epipolar_mask(poses, intrinsics, HEIGHT, WIDTH, 64, None, EpipolarOptions())
