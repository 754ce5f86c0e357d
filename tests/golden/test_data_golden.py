"""Frame sampling, resizing and intrinsics against the published data set class's numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cami2v.geometry.cameras import intrinsic_matrix
from cami2v.geometry.framing import frame_images, frame_intrinsics, framing_for
from data_pipeline.sampling import select_frames
from tests.golden.cases import generator, load_case

SIZES = ["1080x1920", "240x426", "300x300", "360x640", "480x360", "720x1280"]


class ScriptedRandom:
    def __init__(self, uniforms: list[float]) -> None:
        self.uniforms = iter(uniforms)
        self.calls: list[list[int]] = []

    def __call__(self, low: int, high: int) -> int:
        value = low + math.floor(next(self.uniforms) * (high - low + 1))
        self.calls.append([low, high, value])
        return value


def test_frame_sampling() -> None:
    rows = load_case("data__frame_sampling").parameters["rows"]
    assert len(rows) == 56
    for row in rows:
        random_integer = ScriptedRandom(row["u"])
        request = {
            "available": row["frame_num"],
            "frames": row["video_length"],
            "stride": row["frame_stride_cfg"],
            "random_integer": random_integer,
            "where": "shard sample",
        }
        if row.get("error"):  # the published code divides by zero or never ends; ours says why
            with pytest.raises(ValueError, match=f"{row['frame_num']} frames, fewer than"):
                select_frames(**request)
            continue
        selection = select_frames(**request)
        assert selection.indices.tolist() == row["indices"]
        assert selection.stride == row["frame_stride"]
        assert random_integer.calls == row["randint_calls"]
        assert math.floor(row["fps_ori"] / selection.stride) == row["fps"]


@pytest.mark.parametrize("target", ["256x256", "320x512"])
@pytest.mark.parametrize("size", SIZES)
def test_resize_and_intrinsics(size: str, target: str) -> None:
    case = load_case(f"data__resize__{size}_to_{target}")
    height, width = case.parameters["source"]
    goal = (case.parameters["target"][0], case.parameters["target"][1])
    pixels = generator(f"{case.parameters['case']}/frames").integers(0, 256, (3, 2, height, width), np.uint8)
    framing = framing_for(height, width, goal)
    assert list(framing.resized) == case.parameters["resized"]
    assert (framing.top, framing.left) == (case.parameters["crop_top"], case.parameters["crop_left"])

    frames = torch.from_numpy(pixels).transpose(0, 1).float() / 127.5 - 1
    video = frame_images(frames, framing).transpose(0, 1)
    assert video.shape == (3, 2, *goal)
    rows, columns = case["sample_y"], case["sample_x"]
    torch.testing.assert_close(video[:, :, rows][..., columns], case["sample"], atol=1e-4, rtol=0)
    torch.testing.assert_close(video.mean(dim=(0, 1, 3)), case["row_mean"], atol=1e-4, rtol=0)
    torch.testing.assert_close(video.mean(dim=(0, 1, 2)), case["col_mean"], atol=1e-4, rtol=0)

    normalized = torch.tensor(case.parameters["intrinsics_norm_per_frame"], dtype=torch.float64)
    published = intrinsic_matrix(frame_intrinsics(normalized, framing, "published"))
    torch.testing.assert_close(published.float(), case["K"], atol=1e-3, rtol=1e-6)
    centred = normalized.clone()
    centred[:, 2:] = 0.5
    difference = frame_intrinsics(centred, framing, "published") - frame_intrinsics(centred, framing, "cropped")
    assert difference.abs().max() <= 0.5
