"""Cases of epipolar masks: from the stored fundamental matrices, and from poses."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from cami2v.batch import Cameras
from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.epipolar import EpipolarOptions, epipolar_mask, fundamental_matrices, mask_from_fundamental
from tools.parity.cases import Case, find_cases, normal, unpack_mask
from tools.parity.checks import Checks
from tools.parity.stored_cameras import (
    cameras_of,
    compare_up_to_scale,
    condition_frames,
    different_frames,
    pairs_with_parallax,
)

FLAGS = {
    "epipolar_hybrid_attention": "hybrid",
    "epipolar_hybrid_attention_v2": "hybrid_v2",
    "only_self_pixel_on_current_frame": "only_self_pixel_on_current_frame",
    "current_frame_as_register_token": "current_frame_as_register_token",
}
PERTURBED, NO_FLAG = "pert", "none"

RATE_FROM_STORED, RATE_FROM_POSES = 1e-5, 1e-3
"""Of mask entries: keys on the threshold itself, in float32, from the same F and from an F of our own."""

LARGEST_FROM_POSES = 2**26
"""Entries of the largest mask that is also built from poses; the finest level would add time and no information."""


def masks(case: Case) -> Checks:
    """Compare F and the mask of every stored level: pairs of frames by their count, some rows and one level in full."""
    theirs = case["F"]
    frames = theirs.shape[1]
    height, width = image_size(case)
    perturbed = bool(case.parameters.get("perturbation", "with perturbation" in case.parameters.get("what", "")))
    # Same-frame blocks without perturbation are rounding noise of the publisher's machine.
    pairs = torch.ones(frames, frames, dtype=torch.bool) if perturbed else different_frames(frames)
    levels = sorted((int(name.split("_")[1]) for name in case.arrays if name.startswith("counts_")), reverse=True)
    checks = Checks()
    for level in levels:
        mask = mask_from_fundamental(theirs, height, width, level, EpipolarOptions())
        compare_level(checks, case, f"d={level} from the stored F", mask, level, pairs, RATE_FROM_STORED)
    cameras = _posed(case, height, width)
    if cameras is None:
        return checks
    noise = _perturbation(case, tuple(theirs.shape[:3])) if perturbed else None
    # Pairs of frames do not depend on which frame is the conditioning one.
    first = torch.zeros(theirs.shape[0], dtype=torch.int64)
    poses = scaled_relative_poses(cameras, first, float(case.parameters.get("trace_scale_factor", 1.0)))
    if not perturbed:
        pairs = pairs_with_parallax(poses).all(dim=0)
    ours = fundamental_matrices(poses, cameras.intrinsics_pixels, perturbation=noise, key_intrinsics_on_both_sides=True)
    compare_up_to_scale(checks, "F", ours[:, pairs], theirs[:, pairs], maximum=1e-3)
    options = EpipolarOptions(key_intrinsics_on_both_sides=True)
    for level in levels:
        if (frames * (height // level) * (width // level)) ** 2 * theirs.shape[0] <= LARGEST_FROM_POSES:
            mask = epipolar_mask(poses, cameras.intrinsics_pixels, height, width, level, noise, options)
            compare_level(checks, case, f"d={level} from poses", mask, level, pairs, RATE_FROM_POSES)
    return checks


def compare_level(checks: Checks, case: Case, name: str, mask: Tensor, level: int, pairs: Tensor, rate: float) -> None:
    """Compare a mask with what the case stores of its level, over `pairs` of frames."""
    frames = pairs.shape[0]
    cells = mask.shape[1] // frames
    difference = (pair_counts(mask, frames) - case[f"counts_{level}"])[:, pairs].abs().sum()
    checks.mismatches(f"mask {name}, counts", int(difference), mask.numel(), rate=rate)
    if f"rows_{level}" in case.arrays:
        index = case[f"rowidx_{level}"].long()
        rows = mask[0, index]
        kept = pairs[index // cells].repeat_interleave(cells, dim=1)
        different = (rows != unpack_mask(case[f"rows_{level}"], tuple(rows.shape)))[kept]
        checks.mismatches(f"mask {name}, rows", int(different.sum()), rows.numel(), rate=rate)
    if f"full_{level}" in case.arrays:
        different = mask != unpack_mask(case[f"full_{level}"], tuple(mask.shape))
        kept = pairs.repeat_interleave(cells, dim=0).repeat_interleave(cells, dim=1)
        checks.mismatches(f"mask {name}, all", int(different[:, kept].sum()), mask.numel(), rate=rate)


def pair_counts(mask: Tensor, frames: int) -> Tensor:
    """Count the True entries of every pair of frames."""
    batch, tokens = mask.shape[:2]
    blocks = mask.view(batch, frames, tokens // frames, frames, tokens // frames)
    # Frame by frame: the sum of booleans takes eight bytes for each of them.
    return torch.stack([blocks[:, frame].sum(dim=(1, 3)) for frame in range(frames)], dim=1)


def image_size(case: Case) -> tuple[int, int]:
    """Find the image size in the case's text, else in its name, and check it against the size of the stored rows.

    Raises ValueError where neither says it, or where it does not fit.
    """
    frames = next(case[name].shape[-3] for name in case.arrays if name.endswith("F"))
    texts = (case.parameters.get("what", ""), case.name.split("__", 1)[-1])
    found = [size for text in texts for size in re.findall(r"(\d+)x(\d+)", text)]
    found += [(side, side) for side in re.findall(r"(?:^|_)(\d+)_T\d+", texts[1])]
    for height, width in ((int(height), int(width)) for height, width in found):
        if all(
            case[name].shape[-1] == math.ceil(frames * (height // level) * (width // level) / 8)
            for name, level in ((name, int(name.split("_")[1])) for name in case.arrays if name.startswith("rows_"))
        ):
            return height, width
    raise ValueError(f"{case.folder / case.name}.json: no image size in 'what' or the name fits the stored rows")


def options(case: Case) -> Checks:
    """Compare every set of options, for each kind of motion, at the levels the case stores."""
    height, width = image_size(case)
    checks = Checks()
    motions = [name.removesuffix("_w2c") for name in case.arrays if name.endswith("_w2c")]
    for motion in motions:
        _compare_fundamental(checks, case, motion)
        stored = [re.fullmatch(rf"{re.escape(motion)}__(.+)__(full|counts)(\d+)", name) for name in case.arrays]
        for flags, kind, level in (match.groups() for match in stored if match):
            name = f"{motion}__{flags}__{kind}{level}"
            fundamental, pairs = _fundamental(case, motion, flags)
            mask = mask_from_fundamental(fundamental, height, width, int(level), published_options(flags))
            frames, cells = len(pairs), mask.shape[1] // len(pairs)
            if kind == "counts":
                difference = (pair_counts(mask, frames) - case[name].long())[:, pairs].abs()
            else:
                kept = pairs.repeat_interleave(cells, dim=0).repeat_interleave(cells, dim=1)
                difference = (mask != unpack_mask(case[name], tuple(mask.shape)))[:, kept]
            checks.mismatches(name, int(difference.sum()), mask.numel(), rate=RATE_FROM_STORED)
    return checks


def published_options(flags: str) -> EpipolarOptions:
    """Translate option names joined by plus signs. Raises ValueError for an unknown one."""
    names = [flag for flag in flags.split("+") if flag not in (NO_FLAG, PERTURBED)]
    unknown = [name for name in names if name not in FLAGS]
    if unknown:
        raise ValueError(f"mask option {unknown[0]!r} is unknown; known are {', '.join(FLAGS)}")
    return EpipolarOptions(**{FLAGS[name]: True for name in names})


def _fundamental(case: Case, motion: str, flags: str) -> tuple[Tensor, Tensor]:
    """Return the stored F of an option set and the pairs of frames in which the published mask means anything."""
    perturbed = PERTURBED in flags.split("+")
    fundamental = case[f"{motion}__{PERTURBED}_F" if perturbed else f"{motion}_F"]
    frames = fundamental.shape[1]
    chosen = published_options(flags)
    replaced = chosen.only_self_pixel_on_current_frame or chosen.current_frame_as_register_token
    return fundamental, torch.ones(frames, frames, dtype=torch.bool) if perturbed or replaced else different_frames(
        frames
    )


def _compare_fundamental(checks: Checks, case: Case, motion: str) -> None:
    cameras = cameras_of(case[f"{motion}_w2c"], case["K"])
    condition = condition_frames(case, cameras.world_to_camera.shape[0])
    poses = scaled_relative_poses(cameras, condition, float(case.parameters.get("trace_scale_factor", 1.0)))
    theirs = case[f"{motion}_F"]
    lined = pairs_with_parallax(poses)
    ours = fundamental_matrices(poses, cameras.intrinsics_pixels, perturbation=None, key_intrinsics_on_both_sides=True)
    if lined.any():
        compare_up_to_scale(checks, f"{motion}_F", ours[lined], theirs[lined], maximum=1e-3)
    if f"{motion}__{PERTURBED}_F" in case.arrays:
        (template,) = case.stated(r"crc32\('([^']+)'\)", of="note")
        noise = normal(re.sub(r"<.*>", motion, template), (*theirs.shape[:3], 3, 1)).squeeze(-1)
        perturbed = fundamental_matrices(
            poses, cameras.intrinsics_pixels, perturbation=noise, key_intrinsics_on_both_sides=True
        )
        name = f"{motion}__{PERTURBED}_F"
        compare_up_to_scale(checks, name, perturbed, case[name], maximum=1e-3)


def _posed(case: Case, height: int, width: int) -> Cameras | None:
    """Find the poses of the case's clip: here, or in another case of the folder with the same clip, frames and size."""
    shape = case["F"].shape[:2]
    others = [other for other in find_cases(case.folder) if other.name != case.name]
    for source in (case, *others):
        clips = source.parameters.get("clips", [source.parameters.get("clip")])
        same_frames = source.parameters.get("frames") == case.parameters.get("frames")
        if case.parameters.get("clip") not in clips or not same_frames or not {"w2c", "K"} <= source.arrays.keys():
            continue
        row = clips.index(case.parameters.get("clip"))
        world_to_camera, matrix = source["w2c"][row : row + 1], source["K"][row : row + 1]
        centred = (2 * matrix[0, 0, :2, 2] - torch.tensor([width, height])).abs().max() <= 1
        if world_to_camera.shape[:2] == shape and centred:
            return cameras_of(world_to_camera, matrix)
    return None


def _perturbation(case: Case, shape: tuple[int, ...]) -> Tensor:
    text = case.parameters.get("perturbation_noise", "")
    spelled = re.search(r"crc32\('([^']+)'\)", text)
    return normal(spelled.group(1) if spelled else f"{case.key}/perturbation", (*shape, 3, 1)).squeeze(-1)
