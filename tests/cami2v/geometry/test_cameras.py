from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.geometry.cameras import (
    as_homogeneous,
    crop_intrinsics,
    interpolate_poses,
    intrinsic_matrix,
    intrinsics_in_pixels,
    invert_pose,
    relative_poses,
    resize_intrinsics,
    scaled_relative_poses,
)
from cami2v.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle


def random_poses(*shape: int, seed: int = 0) -> Tensor:
    numbers = torch.randn(*shape, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.cat([axis_angle_to_matrix(numbers[..., :3]), numbers[..., 3:, None]], dim=-1)


def test_rotation_vectors_survive_the_round_trip() -> None:
    axis = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=-1)
    for angle in (0.0, 1e-9, 1e-3, 1.0, 3.0, math.pi - 1e-7):
        vectors = angle * axis
        rotation = axis_angle_to_matrix(vectors)
        torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(7, 3, 3))
        torch.testing.assert_close(matrix_to_axis_angle(rotation), vectors, rtol=0, atol=1e-8)


def test_half_turn_has_a_rotation_vector() -> None:
    half_turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))
    assert matrix_to_axis_angle(half_turn).norm().item() == pytest.approx(math.pi)


def test_relative_poses_do_not_depend_on_the_world_frame() -> None:
    poses, world = random_poses(2, 5), as_homogeneous(random_poses(1, seed=1))[0]
    condition = torch.tensor([0, 3])
    moved = (as_homogeneous(poses) @ world)[:, :, :3]
    relative = relative_poses(poses, condition)
    torch.testing.assert_close(relative, relative_poses(moved, condition), rtol=0, atol=1e-12)
    for clip, frame in enumerate(condition.tolist()):
        assert torch.equal(relative[clip, frame], torch.eye(4, dtype=torch.float64))


def test_relative_pose_maps_camera_points_to_the_condition_camera() -> None:
    poses = random_poses(1, 3)
    relative = relative_poses(poses, torch.tensor([1]))[0]
    world_point = torch.tensor([0.3, -0.2, 2.0, 1.0], dtype=torch.float64)
    in_camera = as_homogeneous(poses)[0] @ world_point
    torch.testing.assert_close(relative[2] @ in_camera[2], in_camera[1])


def test_mirrored_worlds_give_the_same_relative_poses() -> None:
    poses = as_homogeneous(random_poses(1, 4))
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    condition = torch.tensor([0])
    torch.testing.assert_close(
        relative_poses((poses @ mirror)[:, :, :3], condition), relative_poses(poses[:, :, :3], condition)
    )


def test_scale_is_that_of_the_condition_frame() -> None:
    poses = random_poses(2, 3)
    scale = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    intrinsics = torch.ones(2, 3, 4, dtype=torch.float64)
    cameras = Cameras(world_to_camera=poses, intrinsics_pixels=intrinsics, translation_scale=scale, height=8, width=8)
    condition = torch.tensor([1, 2])
    scaled, plain = scaled_relative_poses(cameras, condition, 0.5), relative_poses(poses, condition).float()
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled[0, :, :3, 3], plain[0, :, :3, 3] * 1.0)
    torch.testing.assert_close(scaled[1, :, :3, 3], plain[1, :, :3, 3] * 3.0)
    assert torch.equal(scaled[..., :3, :3], plain[..., :3, :3])


def test_nearby_cameras_far_from_the_origin_keep_their_distance() -> None:
    poses = torch.eye(4, dtype=torch.float64)[:3].repeat(1, 2, 1, 1)
    poses[0, :, 0, 3] = torch.tensor([10_000.0, 10_000.000_1], dtype=torch.float64)
    cameras = Cameras(
        world_to_camera=poses,
        intrinsics_pixels=torch.ones(1, 2, 4, dtype=torch.float64),
        translation_scale=torch.ones(1, 2, dtype=torch.float64),
        height=8,
        width=8,
    )
    step = scaled_relative_poses(cameras, torch.tensor([0]), 1.0)[0, 1, 0, 3].item()
    assert step == pytest.approx(-1e-4, rel=1e-4)


def project(intrinsics: Tensor, point: Tensor) -> Tensor:
    image = intrinsic_matrix(intrinsics) @ point
    return image[:2] / image[2]


def test_projection_follows_resize_and_crop() -> None:
    normalized = torch.tensor([0.5, 0.9, 0.45, 0.52], dtype=torch.float64)
    point = torch.tensor([0.2, -0.1, 1.5], dtype=torch.float64)
    original = intrinsics_in_pixels(normalized, 360, 640)
    resized = resize_intrinsics(original, (360, 640), (256, 455))
    before, after = project(original, point), project(resized, point)
    torch.testing.assert_close(after, before * torch.tensor([455 / 640, 256 / 360], dtype=torch.float64))
    torch.testing.assert_close(resized, intrinsics_in_pixels(normalized, 256, 455))
    cropped = project(crop_intrinsics(resized, 3, 99), point)
    torch.testing.assert_close(cropped, after - torch.tensor([99.0, 3.0], dtype=torch.float64))


def test_interpolation_stays_on_rotations_and_passes_through_the_poses() -> None:
    poses = invert_pose(as_homogeneous(random_poses(5)))
    torch.testing.assert_close(interpolate_poses(poses, torch.arange(5.0, dtype=torch.float64)), poses)
    between = interpolate_poses(poses, torch.linspace(0, 4, 23, dtype=torch.float64))
    rotation = between[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(23, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(23, dtype=torch.float64))


def test_interpolation_turns_at_constant_speed_along_the_shortest_arc() -> None:
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[1, :3, :3] = axis_angle_to_matrix(torch.tensor([0.0, 1.2, 0.0], dtype=torch.float64))
    poses[1, :3, 3] = torch.tensor([4.0, 0.0, 0.0])
    quarter = interpolate_poses(poses, torch.tensor([0.25], dtype=torch.float64))[0]
    torch.testing.assert_close(
        matrix_to_axis_angle(quarter[:3, :3]), torch.tensor([0.0, 0.3, 0.0], dtype=torch.float64)
    )
    assert quarter[0, 3].item() == pytest.approx(1.0)


def test_interpolation_refuses_positions_off_the_path() -> None:
    with pytest.raises(ValueError, match=r"allowed are 0\.\.2"):
        interpolate_poses(torch.eye(4).repeat(3, 1, 1), torch.tensor([2.5]))
