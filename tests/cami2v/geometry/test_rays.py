from __future__ import annotations

import torch

from cami2v.geometry.cameras import intrinsic_matrix, invert_pose
from cami2v.geometry.rays import pluecker_map
from cami2v.trajectories.presets import preset

HEIGHT, WIDTH, FRAMES = 6, 9, 4


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    poses = preset("orbit_left", FRAMES, 0.8).float()[None]
    intrinsics = torch.tensor([7.0, 6.0, 4.2, 3.1]).expand(1, FRAMES, 4)
    return poses, intrinsics, pluecker_map(poses, intrinsics, HEIGHT, WIDTH)


def test_direction_is_unit_and_orthogonal_to_the_moment() -> None:
    _, _, rays = example()
    moment, direction = rays[:, :3], rays[:, 3:]
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(1, FRAMES, HEIGHT, WIDTH))
    assert (moment * direction).sum(dim=1).abs().max() < 1e-6


def test_rays_pass_through_their_pixel_centres() -> None:
    poses, intrinsics, rays = example()
    to_camera = invert_pose(poses)
    for frame, row, column in ((0, 0, 0), (1, 5, 8), (3, 2, 7)):
        moment, direction = rays[0, :3, frame, row, column], rays[0, 3:, frame, row, column]
        # d x m is the point of the line nearest to the origin.
        point = torch.linalg.cross(direction, moment) + 5 * direction
        in_camera = to_camera[0, frame, :3, :3] @ point + to_camera[0, frame, :3, 3]
        image = intrinsic_matrix(intrinsics[0, frame]) @ in_camera
        torch.testing.assert_close(image[:2] / image[2], torch.tensor([column + 0.5, row + 0.5]), rtol=0, atol=1e-4)


def test_condition_frame_has_no_moment() -> None:
    _, _, rays = example()
    assert (rays[:, :3, 0] == 0).all()
    assert rays[:, :3, 1].abs().max() > 0.1


def test_autocast_does_not_touch_the_map() -> None:
    poses, intrinsics, rays = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(pluecker_map(poses, intrinsics, HEIGHT, WIDTH), rays)
