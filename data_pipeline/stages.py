"""The stages a sample passes between a shard and a batch, one function each, in order."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import default_collate

from cami2v.batch import Cameras, Clip, ClipBatch, RawClip
from cami2v.geometry.cameras import intrinsics_in_pixels
from cami2v.geometry.framing import Framing, PrincipalPoint, frame_images, frame_intrinsics, framing_for
from cami2v.geometry.pose_scale import ScalePolicy, translation_scale
from cami2v.video import Frames, read_frames
from data_pipeline.npz import read_npz
from data_pipeline.sampling import FrameSelection

SAMPLE_VERSION = 1


def parse_sample(members: Mapping[str, bytes], *, scale_policy: ScalePolicy, where: str) -> RawClip:
    """Turn a shard sample's members into a RawClip, video still encoded.

    Raises ValueError, naming `where` (shard and sample key), for members that do not follow the format.
    """
    try:
        about = json.loads(members["json"])
        cameras = read_npz(members["cameras.npz"])
        if about["format_version"] != SAMPLE_VERSION:
            raise ValueError(f"{where}: format version {about['format_version']}, this program reads {SAMPLE_VERSION}")
        frames = len(cameras["world_to_camera"])
        poses, intrinsics = cameras["world_to_camera"], cameras["intrinsics_normalized"]
        if poses.shape != (frames, 3, 4) or intrinsics.shape != (frames, 4):
            raise ValueError(f"{where}: poses {poses.shape} and intrinsics {intrinsics.shape}; see docs/data-format.md")
        if not (np.isfinite(poses).all() and np.isfinite(intrinsics).all()):
            raise ValueError(f"{where}: poses or intrinsics hold values that are not finite; pack it again")
        metric_scale = cameras.get("metric_scale")
        if scale_policy == ScalePolicy.METRIC and metric_scale is None:
            raise ValueError(
                f"{where}: data.scale_policy=metric, but the clip has no metric_scale; "
                "pack with metric scales (docs/metric-scale.md), or choose relative or first_frame_normalized"
            )
        return RawClip(
            clip_id=about["clip_id"],
            source_id=about["source_id"],
            captions=tuple(about["captions"]),
            video=members["mp4"],
            height=about["packed"]["height"],
            width=about["packed"]["width"],
            pixel_aspect=float(about["pixel_aspect"]),
            frames_per_second=float(about["packed"]["frames_per_second"]),
            world_to_camera=poses,
            intrinsics_normalized=intrinsics,
            timestamps_microseconds=cameras["timestamps_microseconds"],
            translation_scale=(np.ones(frames) if metric_scale is None else metric_scale.astype(np.float64)),
        )
    except (
        KeyError,
        TypeError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
    ) as error:
        raise ValueError(
            f"{where}: not a posed clip ({type(error).__name__}: {error}); see docs/data-format.md"
        ) from error


def decode(
    raw: RawClip,
    selection: FrameSelection,
    *,
    caption: str,
    seed: int,
    resolution: tuple[int, int],
    principal_point: PrincipalPoint,
    scale_policy: ScalePolicy,
    where: str,
) -> Clip:
    """Decode the selected frames, and only those, with square pixels and in the loader's resolution."""
    pixels = read_frames(raw.video, selection.indices.tolist())
    if pixels.shape[1:3] != (raw.height, raw.width):
        raise ValueError(f"{where}: frames are {pixels.shape[1:3]}, its json says {(raw.height, raw.width)}")
    return Clip(
        clip_id=raw.clip_id,
        caption=caption,
        seed=seed,
        video=frame_pixels(pixels, framing_for(raw.height, raw.width, resolution, raw.pixel_aspect)),
        pixel_aspect=1.0,
        cameras=framed_cameras(
            raw,
            selection,
            resolution=resolution,
            principal_point=principal_point,
            scale_policy=scale_policy,
            where=where,
        ),
        frame_indices=torch.from_numpy(selection.indices),
        frame_stride=selection.stride,
        frames_per_second=raw.frames_per_second / selection.stride,
    )


def frame_pixels(pixels: Frames, framing: Framing) -> Float32[Tensor, "frames 3 new_height new_width"]:
    """Bring frames into [-1, 1] and into the loader's resolution, in one resampling at most."""
    if pixels.shape[1:3] != framing.resized:
        return frame_images(_floats(pixels), framing)
    rows = slice(framing.top, framing.top + framing.height)
    return _floats(pixels[:, rows, framing.left : framing.left + framing.width])


def _floats(pixels: Frames) -> Float32[Tensor, "frames 3 height width"]:
    """Return values in [-1, 1], one plane of all frames after another: the order in which batches have them."""
    planes = torch.empty((3, *pixels.shape[:3]))
    for number, frame in enumerate(pixels):  # one by one they stay in the processor's cache
        planes[:, number].copy_(rearrange(torch.from_numpy(frame), "h w rgb -> rgb h w"))
        planes[:, number].div_(127.5).sub_(1)
    return rearrange(planes, "rgb frames h w -> frames rgb h w")


def framed_cameras(
    raw: RawClip,
    selection: FrameSelection,
    *,
    resolution: tuple[int, int],
    principal_point: PrincipalPoint,
    scale_policy: ScalePolicy,
    where: str,
) -> Cameras:
    """Return the cameras of the selected frames in the loader's resolution."""
    framing = framing_for(raw.height, raw.width, resolution, raw.pixel_aspect)
    return frame_cameras(
        select_cameras(raw, selection, scale_policy=scale_policy, where=where), framing, principal_point
    )


def select_cameras(raw: RawClip, selection: FrameSelection, *, scale_policy: ScalePolicy, where: str) -> Cameras:
    """Return the cameras of the selected frames, for the stored pixels.

    The scale is that of the selected frames: what lies outside the window must not change what the model sees.
    """
    world_to_camera = torch.from_numpy(raw.world_to_camera[selection.indices])
    metric = torch.from_numpy(raw.translation_scale[selection.indices])
    normalized = torch.from_numpy(raw.intrinsics_normalized[selection.indices])
    return Cameras(
        world_to_camera=world_to_camera,
        intrinsics_pixels=intrinsics_in_pixels(normalized, raw.height, raw.width),
        translation_scale=translation_scale(scale_policy, world_to_camera, metric, where=where),
        height=raw.height,
        width=raw.width,
    )


def frame_cameras(cameras: Cameras, framing: Framing, principal_point: PrincipalPoint) -> Cameras:
    """Move the intrinsics with the pixels."""
    size = cameras.intrinsics_pixels.new_tensor([cameras.width, cameras.height] * 2)
    return Cameras(
        world_to_camera=cameras.world_to_camera,
        intrinsics_pixels=frame_intrinsics(cameras.intrinsics_pixels / size, framing, principal_point),
        translation_scale=cameras.translation_scale,
        height=framing.height,
        width=framing.width,
    )


def collate(clips: Sequence[Clip]) -> ClipBatch:
    """Stack clips of equal length and size."""
    return ClipBatch(
        clip_ids=tuple(clip.clip_id for clip in clips),
        captions=tuple(clip.caption for clip in clips),
        seeds=torch.tensor([clip.seed for clip in clips], dtype=torch.int64),
        # Stacks in memory that processes share where it runs in a worker: frames then cross over without a copy.
        video=default_collate([rearrange(clip.video, "frames rgb h w -> rgb frames h w") for clip in clips]),
        cameras=stack_cameras([clip.cameras for clip in clips]),
        frame_indices=torch.stack([clip.frame_indices for clip in clips]),
        frame_stride=torch.tensor([clip.frame_stride for clip in clips], dtype=torch.int64),
        frames_per_second=torch.tensor([clip.frames_per_second for clip in clips], dtype=torch.float32),
    )


def stack_cameras(cameras: Sequence[Cameras]) -> Cameras:
    """Stack the cameras of clips of equal length and size."""
    return Cameras(
        world_to_camera=torch.stack([each.world_to_camera for each in cameras]),
        intrinsics_pixels=torch.stack([each.intrinsics_pixels for each in cameras]),
        translation_scale=torch.stack([each.translation_scale for each in cameras]),
        height=cameras[0].height,
        width=cameras[0].width,
    )
