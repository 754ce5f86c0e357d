"""Does the camera matter? The same model, clip and noise under another trajectory."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cami2v.batch import Cameras, ClipBatch

Trajectory = Literal["right", "stationary", "shuffled"]


def camera_interventions(batch: ClipBatch, *, others: Cameras | None = None) -> dict[Trajectory, ClipBatch]:
    """Return the batch under its own trajectory, a stationary one and another clip's.

    `others` are the cameras whose trajectories the clips get under `shuffled`; by default those of the batch, moved on
    by one clip. Intrinsics stay with the images. Raises ValueError where a clip would get its own trajectory, or one of
    another length.
    """
    cameras = batch.cameras
    if others is None:
        if len(batch.clip_ids) < 2:
            raise ValueError("a batch of one clip has no other trajectory to shuffle with: pass `others`")
        others = _rolled(cameras)
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


def _stationary(cameras: Cameras) -> Cameras:
    first = cameras.world_to_camera[..., :1, :, :]
    return replace(cameras, world_to_camera=first.expand_as(cameras.world_to_camera).contiguous())


def _rolled(cameras: Cameras) -> Cameras:
    return replace(
        cameras,
        world_to_camera=cameras.world_to_camera.roll(1, 0),
        translation_scale=cameras.translation_scale.roll(1, 0),
    )
