"""Epipolar masks beside networks: what the cameras of a case give against the stored bits."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

from cami2v.attention.masks import AttentionMask, DenseMask
from cami2v.camera_control.cami2v import CamI2V, CamI2VCondition
from cami2v.camera_control.pyramid import MaskPyramid
from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.epipolar import EpipolarOptions, epipolar_mask
from tools.parity.checks import Checks
from tools.parity.network_cases import ModelCase, PublishedDraws, compare_output
from tools.parity.published_settings import PERTURB, PIXELS_PER_LATENT, mask_options

MISMATCH_RATE = 1e-5
"""Of the bits of a case: cells whose distance to the line falls on the threshold."""
MISMATCH_RATE_OF_LEVEL = 1e-3
"""Of the bits of one mask, which may be so small that the rate above allows none."""


def masks(case: ModelCase) -> Checks:
    """Compare the mask of every level under every set of options."""
    checks = Checks()
    settings = case.hyper_parameters
    cameras = case.cameras()
    poses = scaled_relative_poses(cameras, case.condition_frame, case.geometry["trace_scale_factor"])
    compare_output(checks, case, "relative_c2w", poses)
    frames = poses.shape[1]
    noise = PublishedDraws(case).normal("epipolar_perturbation", (frames, frames, 3))
    key_frames = torch.arange(frames).expand(len(poses), -1)
    counts = []
    for number, flags in enumerate(settings["flag_sets"]):
        perturbed, options = flags.get(PERTURB, False), mask_options(flags)
        for level in settings["attention_resolution"]:
            pixels = PIXELS_PER_LATENT * level
            ours = epipolar_mask(
                poses,
                cameras.intrinsics_pixels,
                cameras.height,
                cameras.width,
                pixels,
                noise if perturbed else None,
                options,
            )
            theirs = stored(checks, case, f"{number}__{pixels}")
            name = f"{number}__{pixels}"
            counts.append(compare(checks, name, ours, theirs, key_frames, perturbed=perturbed, options=options))
    compare_all(checks, counts)
    return checks


def compare_masks(checks: Checks, case: ModelCase, control: CamI2V, condition: CamI2VCondition) -> None:
    """Compare the masks that a method made from a case's cameras with the stored ones."""
    frames = case.input("x").shape[2]
    counts = []
    for level in condition.masks.levels:
        ours = condition.masks.at(level).dense()
        key = str(level * control.latent_downsample)
        theirs = stored(checks, case, key)
        key_frames = torch.arange(frames).expand(len(ours), -1)
        if control.condition_frame_only:
            key_frames = condition.condition_frame[:, None]
            theirs = of_condition_frame(theirs, frames, condition)
        perturbed, options = control.perturb_same_frame, control.mask_options
        counts.append(compare(checks, key, ours, theirs, key_frames, perturbed=perturbed, options=options))
    compare_all(checks, counts)


def stored_masks(case: ModelCase, control: CamI2V, condition: CamI2VCondition) -> MaskPyramid:
    """Bring the stored masks into the form of the condition, to continue with exactly the published bits."""
    frames = case.input("x").shape[2]
    levels: dict[int, AttentionMask] = {}
    for level in condition.masks.levels:
        mask = case.mask(str(level * control.latent_downsample))
        if control.condition_frame_only:
            mask = of_condition_frame(mask, frames, condition)
        levels[level] = DenseMask(allowed=mask)
    return MaskPyramid(levels=levels)


def stored(checks: Checks, case: ModelCase, key: str) -> Tensor:
    """Return a stored mask after comparing it with what the index says of it."""
    mask, entry = case.mask(key), case.entry["masks"][key]
    checks.equal(f"stored mask {key}: true entries", int(mask.sum()), entry["true_count"])
    checks.equal(f"stored mask {key}: empty rows", int((~mask.any(dim=-1)).sum()), entry["empty_rows"])
    digest = hashlib.sha256(np.packbits(mask.numpy()).tobytes()).hexdigest()
    checks.equal(f"stored mask {key}: sha256", digest, entry["sha256_packbits"])
    return mask


def of_condition_frame(mask: Tensor, frames: int, condition: CamI2VCondition) -> Tensor:
    """Keep the keys of each clip's conditioning frame."""
    rows = zip(mask.unflatten(2, (frames, -1)), condition.condition_frame, strict=True)
    return torch.stack([clip[:, frame] for clip, frame in rows])


def compare(
    checks: Checks,
    key: str,
    ours: Tensor,
    theirs: Tensor,
    key_frames: Tensor,
    *,
    perturbed: bool,
    options: EpipolarOptions,
) -> tuple[int, int]:
    """Count differing entries among those that are reproducible; return both numbers.

    Without the perturbation the published masks of a frame with itself are rounding noise, unless an option overrides
    them; and whether a query sees nothing at all then depends on that noise.
    """
    if ours.shape != theirs.shape:
        checks.equal(f"mask {key}: shape", tuple(ours.shape), tuple(theirs.shape))
        return 0, 0
    batch, key_count = key_frames.shape
    frames = torch.arange(ours.shape[1] * key_count // ours.shape[2])
    counted = torch.ones_like(ours).view(batch, len(frames), -1, key_count, ours.shape[2] // key_count)
    if not perturbed:
        if not options.only_self_pixel_on_current_frame and not options.current_frame_as_register_token:
            same_frame = frames[None, :, None] == key_frames[:, None, :]
            counted &= ~same_frame[:, :, None, :, None]
        if options.hybrid_v2:
            counted &= ~ours.all(dim=-1).view(batch, len(frames), -1, 1, 1)
    different = (ours != theirs).view_as(counted) & counted
    count, total = int(different.sum()), int(counted.sum())
    checks.mismatches(f"mask {key}", count, total, rate=MISMATCH_RATE_OF_LEVEL)
    return count, total


def compare_all(checks: Checks, counts: list[tuple[int, int]]) -> None:
    """Hold the differing entries of all masks of a case together against the published allowance."""
    if counts:
        different, total = map(sum, zip(*counts, strict=True))
        checks.mismatches("masks of all levels", different, total, rate=MISMATCH_RATE)
