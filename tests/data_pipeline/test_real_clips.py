"""The real RealEstate10K clips: packed unchanged, read back with the right geometry and little loss."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.video import read_frames
from data_pipeline.index import read_index, read_sample
from data_pipeline.loader import ClipLoader
from tests.data_pipeline.raw_folders import SETTINGS, pack_quietly

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def real_clips() -> Path:
    folder = Path(os.environ.get("CAMI2V_REAL_CLIPS", REPOSITORY.parent / "shared" / "realestate10k_sample"))
    if not folder.is_dir():
        pytest.skip(f"no real clips at {folder} (set CAMI2V_REAL_CLIPS)")
    return folder


@pytest.fixture(scope="module")
def packed(real_clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("real") / "set"
    frame_format = replace(SETTINGS.frame_format, short_side=256, crf=12, gop=25, b_frames=7)
    pack_quietly(real_clips, output, frame_format=frame_format, splits={"train": 0.9, "test": 0.1}, min_shards=16)
    return output


def test_every_clip_is_stored_on_its_own_grid_with_little_loss(real_clips: Path, packed: Path) -> None:
    losses = []
    for shard in sorted(packed.glob("*.tar")):
        for sample in read_index(shard):
            members = read_sample(shard, sample)
            about = json.loads(members["json"])
            assert (about["packed"]["height"], about["packed"]["width"]) == (256, 384)
            # The clips are 16:9 frames squashed to 3:2.
            assert about["pixel_aspect"] == pytest.approx((16 / 9) / (384 / 256), rel=2e-3)
            assert about["captions"]
            source = read_frames(real_clips / "video_clips" / f"{sample.key}.mp4").astype(float)
            losses.append(float(np.mean((read_frames(members["mp4"]) - source) ** 2)))
    assert len(losses) == len(list((real_clips / "pose_files").glob("*.txt")))
    assert 10 * np.log10(255**2 / np.median(losses)) > 41


def test_loaded_pixels_are_square(packed: Path) -> None:
    loader = ClipLoader(
        shards=str(packed),
        split="train",
        frames=16,
        resolution=[256, 454],
        frame_stride=1,
        num_workers=0,
        scale_policy=ScalePolicy.RELATIVE,
        shuffle_window_shards=4,
        shared_shards="refuse",
    )
    for batch in loader.fixed(count=None, rank=0, world_size=1, seed=0):
        intrinsics = batch.cameras.intrinsics_pixels[0]
        torch.testing.assert_close(intrinsics[:, 0], intrinsics[:, 1], rtol=2e-3, atol=0)
        torch.testing.assert_close(intrinsics[:, 2], torch.full((16,), 227.5).double(), atol=0.01, rtol=0)
        assert batch.video.shape == (1, 3, 16, 256, 454)
        assert batch.video.std() > 0.1
