"""Cases of frame sampling and of resizing with intrinsics."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from einops import rearrange

from cami2v.geometry.cameras import intrinsic_matrix
from cami2v.geometry.framing import frame_intrinsics, framing_for
from data_pipeline.sampling import FrameSelection, select_frames
from data_pipeline.stages import frame_pixels
from tools.parity.cases import Case, generator
from tools.parity.checks import Checks


class ScriptedRandom:
    """Integers from listed uniform numbers, and a record of every call."""

    def __init__(self, uniforms: list[float]) -> None:
        self._uniforms = iter(uniforms)
        self.calls: list[list[int]] = []

    def __call__(self, low: int, high: int) -> int:
        """Scale the next number to `low`..`high`, both included."""
        value = low + math.floor(next(self._uniforms) * (high - low + 1))
        self.calls.append([low, high, value])
        return value


def frame_sampling(case: Case) -> Checks:
    """Compare the frames, the stride, the frame rate and every random call of each row.

    Where the published code divides by zero or never ends, ours must refuse.
    """
    checks = Checks()
    for number, row in enumerate(case.parameters["rows"]):
        name = f"row {number}"
        random_integer = ScriptedRandom(row["u"])
        selection = _select(row, random_integer)
        if row.get("error"):
            checks.equal(f"{name}: refused", selection is None, True)
            continue
        checks.equal(f"{name}: accepted", selection is not None, True)
        if selection is not None:
            checks.equal(f"{name}: indices", selection.indices.tolist(), row["indices"])
            checks.equal(f"{name}: stride", selection.stride, row["frame_stride"])
            checks.equal(f"{name}: random calls", random_integer.calls, row["randint_calls"])
            checks.equal(f"{name}: fps", float(math.floor(row["fps_ori"] / selection.stride)), row["fps"])
    return checks


def _select(row: dict[str, Any], random_integer: ScriptedRandom) -> FrameSelection | None:
    try:
        return select_frames(
            available=row["frame_num"],
            frames=row["video_length"],
            stride=row["frame_stride_cfg"],
            random_integer=random_integer,
            where="row",
        )
    except ValueError:
        return None


def resize(case: Case) -> Checks:
    """Compare resized pixels and intrinsics, the latter by the published rule for the principal point."""
    height, width = case.parameters["source"]
    target = (case.parameters["target"][0], case.parameters["target"][1])
    channels, frames = case["sample"].shape[:2]
    pixels = generator(f"{case.key}/frames").integers(0, 256, (channels, frames, height, width), np.uint8)
    normalized = torch.tensor(case.parameters["intrinsics_norm_per_frame"], dtype=torch.float64)
    framing = framing_for(height, width, target)
    checks, tolerance = Checks(), case.stated_tolerance(1e-4)
    checks.equal("resized", list(framing.resized), case.parameters["resized"])
    checks.equal("crop_top", framing.top, case.parameters["crop_top"])
    checks.equal("crop_left", framing.left, case.parameters["crop_left"])

    video = rearrange(
        frame_pixels(rearrange(pixels, "rgb frames h w -> frames h w rgb"), framing), "frames rgb h w -> rgb frames h w"
    )
    checks.equal("size", tuple(video.shape), (channels, frames, *target))
    rows, columns = case["sample_y"], case["sample_x"]
    checks.close("sample", video[:, :, rows][..., columns], case["sample"], maximum=tolerance)
    checks.close("row_mean", video.mean(dim=(0, 1, 3)), case["row_mean"], maximum=tolerance)
    checks.close("col_mean", video.mean(dim=(0, 1, 2)), case["col_mean"], maximum=tolerance)
    for name, ours in (("mean", video.double().mean()), ("std", video.double().std(correction=0))):
        checks.at_most(name, abs(float(ours) - case.parameters[name]), tolerance)

    matrix = intrinsic_matrix(frame_intrinsics(normalized, framing, principal_point="published")).float()
    checks.elementwise("K", matrix, case["K"], relative=1e-6, absolute=1e-3)
    if "K_mix" in case.arrays:
        # MixDataset: one matrix for the clip, the first frame's.
        checks.elementwise("K_mix", matrix[:1], case["K_mix"], relative=1e-6, absolute=1e-3)
    return checks
