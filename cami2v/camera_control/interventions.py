"""Does the camera matter? The same model, clip and noise under another trajectory."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from cami2v.batch import Cameras, ClipBatch
from cami2v.geometry.cameras import as_homogeneous, invert_pose, relative_poses
from cami2v.geometry.rotations import matrix_to_axis_angle
from cami2v.trajectories.presets import preset

Trajectory = Literal["right", "stationary", "shuffled"]
Comparison = Literal["right", "stationary", "shuffled", "moving"]

BARELY_MOVING = 0.05
"""Radians, and units of translation: a path within both hardly differs from a stationary one."""
MOVING_PATH = ("orbit_right", 0.5)
"""Preset and extent of the path that clips with a barely moving camera are compared with: it turns and travels."""


def camera_interventions(batch: ClipBatch, *, others: Cameras | None = None) -> dict[Trajectory, ClipBatch]:
    """Return the batch under its own trajectory, a stationary one and a shuffled one.

    `others` are the cameras whose trajectories the clips get under `shuffled`; by default those of the batch, moved on
    by one clip, and for a single clip its own poses in another order (odd frames first, so that a path there and back
    does not stay what it was). Intrinsics stay with the images. Raises ValueError for trajectories of another length.
    """
    cameras = batch.cameras
    if others is None:
        others = _rolled(cameras) if len(batch.clip_ids) > 1 else _odd_frames_first(cameras)
    if others.world_to_camera.shape != cameras.world_to_camera.shape:
        raise ValueError(
            f"trajectories of shape {tuple(others.world_to_camera.shape)} for clips of shape "
            f"{tuple(cameras.world_to_camera.shape)}: shuffling needs clips of equal length"
        )
    shuffled = replace(cameras, world_to_camera=others.world_to_camera, translation_scale=others.translation_scale)
    return {
        "right": batch,
        "stationary": replace(batch, cameras=_stationary(cameras)),
        "shuffled": replace(batch, cameras=shuffled),
    }


def comparison_trajectories(batch: ClipBatch, *, others: Cameras | None = None) -> dict[Comparison, ClipBatch]:
    """Return `camera_interventions`, and where a camera of the batch barely moves, the batch along a path that does.

    Without it a model that obeys would look deaf: asked to stand still, it does under all three.
    """
    comparisons = dict[Comparison, ClipBatch](camera_interventions(batch, others=others).items())
    if _barely_moves(batch.cameras):
        comparisons["moving"] = replace(batch, cameras=_moving(batch.cameras))
    return comparisons


def _stationary(cameras: Cameras) -> Cameras:
    first = cameras.world_to_camera[..., :1, :, :]
    return replace(cameras, world_to_camera=first.expand_as(cameras.world_to_camera).contiguous())


def _rolled(cameras: Cameras) -> Cameras:
    return replace(
        cameras,
        world_to_camera=cameras.world_to_camera.roll(1, 0),
        translation_scale=cameras.translation_scale.roll(1, 0),
    )


def _odd_frames_first(cameras: Cameras) -> Cameras:
    frames = torch.arange(cameras.world_to_camera.shape[1], device=cameras.world_to_camera.device)
    order = torch.cat([frames[1::2], frames[::2]])
    return replace(
        cameras,
        world_to_camera=cameras.world_to_camera[:, order],
        translation_scale=cameras.translation_scale[:, order],
    )


def _barely_moves(cameras: Cameras) -> bool:
    first = torch.zeros(len(cameras.world_to_camera), dtype=torch.int64, device=cameras.world_to_camera.device)
    relative = relative_poses(cameras.world_to_camera, first)
    turned = matrix_to_axis_angle(relative[..., :3, :3]).norm(dim=-1).amax(dim=1)
    travelled = relative[..., :3, 3].norm(dim=-1).amax(dim=1) * cameras.translation_scale[:, 0]
    return bool(((turned < BARELY_MOVING) & (travelled < BARELY_MOVING)).any())


def _moving(cameras: Cameras) -> Cameras:
    start, scale = cameras.world_to_camera[:, :1], cameras.translation_scale[:, :1]
    name, extent = MOVING_PATH
    path = preset(name, cameras.world_to_camera.shape[1], extent).to(start.device).repeat(len(start), 1, 1, 1)
    path[..., :3, 3] /= scale[..., None]
    moved = invert_pose(path) @ as_homogeneous(start)
    return replace(cameras, world_to_camera=moved[..., :3, :].contiguous())
