"""Every way of storing frames: packed, loaded, and compared with what the native frames would have given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cami2v.batch import ClipBatch
from cami2v.geometry.framing import frame_intrinsics, framing_for
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.video import probe, read_frames, write_mp4
from data_pipeline.index import read_index, read_sample
from data_pipeline.loader import ClipLoader
from data_pipeline.manifest import read_manifest
from data_pipeline.pack import PackSettings
from data_pipeline.stages import frame_pixels
from launch.compose import compose_config, settings
from tests.data_pipeline.raw_folders import SETTINGS, pack_quietly, write_poses

FRAMES = 30


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 16:9 frames whose scaled width is odd: 67 columns at 38 rows."""
    folder = tmp_path_factory.mktemp("storage") / "raw"
    y, x = np.mgrid[0:90, 0:160]
    for clip in range(2):
        waves = [np.sin((x + 2 * t + 9 * clip) / 17) + np.cos((y - t) / 13) for t in range(FRAMES)]
        frames = np.stack([np.stack([127 + 60 * w, 120 + 50 * w, 140 - 40 * w], -1) for w in waves]).astype(np.uint8)
        write_mp4(folder / "video_clips" / f"clip{clip}.mp4", frames, 30, crf=4)
        write_poses(folder / "pose_files" / f"clip{clip}.txt", FRAMES, source=f"src{clip}")
    (folder / "captions.json").write_text(json.dumps({f"clip{clip}.mp4": ["waves"] for clip in range(2)}))
    return folder


def load(folder: Path, resolution: tuple[int, int]) -> list[ClipBatch]:
    loader = ClipLoader(
        shards=str(folder),
        split="train",
        frames=5,
        resolution=list(resolution),
        frame_stride=4,
        num_workers=0,
        scale_policy=ScalePolicy.RELATIVE,
        shuffle_window_shards=4,
        shared_shards="allow",
    )
    stream = loader.stream(micro_batch_size=1, rank=0, world_size=1, seed=0, start=0)
    batches = [next(stream) for _ in range(4)]
    assert loader.take_skipped() == []
    return [batch for batch in batches if isinstance(batch, ClipBatch)]


@pytest.mark.parametrize(
    ("changes", "stored", "codec"),
    [
        ({"gop": 25, "b_frames": 7, "fast_decode": True}, (38, 66), "h264"),
        ({"gop": 8, "b_frames": 0, "fast_decode": True}, (38, 66), "h264"),
        ({"gop": 1, "b_frames": 0, "fast_decode": False}, (38, 66), "h264"),
        ({"codec": "mjpeg", "jpeg_quality": 95}, (38, 66), "mjpeg"),
        ({"short_side": 64}, (64, 112), "h264"),
        ({"short_side": 256}, (90, 160), "h264"),
    ],
)
def test_every_option_gives_the_native_frames_pixels_and_cameras(
    raw: Path, tmp_path: Path, changes: dict[str, Any], stored: tuple[int, int], codec: str
) -> None:
    frame_format = replace(SETTINGS.frame_format, **({"short_side": 38, "crf": 8} | changes))
    pack_quietly(raw, tmp_path / "set", frame_format=frame_format, splits={"train": 1.0}, min_frames=5)
    said = read_manifest(tmp_path / "set").frame_format
    assert (said["container"], said["codec"], said["short_side"]) == ("mp4", codec, frame_format.short_side)
    assert ("crf" in said, "jpeg_quality" in said) == (codec == "h264", codec == "mjpeg")
    for shard in (tmp_path / "set").glob("*.tar"):
        members = read_sample(shard, read_index(shard)[0])
        info = probe(members["mp4"])
        assert (info.frames, info.height, info.width) == (FRAMES, *stored)
    framing = framing_for(90, 160, (38, 38))
    native = torch.tensor([[0.5, 0.5 * 64 / 36, 0.5, 0.5]], dtype=torch.float64)
    for batch in load(tmp_path / "set", (38, 38)):
        frames = read_frames(raw / "video_clips" / f"{batch.clip_ids[0]}.mp4", batch.frame_indices[0].tolist())
        expected = frame_pixels(frames, framing)
        error = (batch.video[0].transpose(0, 1) - expected).square().mean()
        assert 10 * torch.log10(4 / error) > 34
        intrinsics = batch.cameras.intrinsics_pixels[0]
        # Sizes above the training's are scaled twice, each time to whole pixels.
        tolerance = 0.6 if stored == (64, 112) else 1e-6
        torch.testing.assert_close(intrinsics, frame_intrinsics(native, framing).expand(5, 4), rtol=0, atol=tolerance)


def test_enlarging_what_was_packed_small_is_said(raw: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame_format = replace(SETTINGS.frame_format, short_side=38)
    pack_quietly(raw, tmp_path / "set", frame_format=frame_format, splits={"train": 1.0}, min_frames=5)
    load(tmp_path / "set", (38, 64))
    assert "enlarged" not in caplog.text
    load(tmp_path / "set", (64, 64))
    assert "pack again with pack.frame_format.short_side=64" in caplog.text


def test_the_default_format_is_the_measured_one() -> None:
    """docs/storage.md and docs/benchmarks give the numbers behind it."""
    default = settings(compose_config("pack").pack, PackSettings, "pack").frame_format
    assert default.description() == {
        "container": "mp4",
        "codec": "h264",
        "pixels": "yuv420p",
        "short_side": 256,
        "crf": default.crf,
        "gop": 25,
        "b_frames": 7,
        "fast_decode": True,
    }
    grid = default.grid(720, 1280)
    assert (grid.resized, grid.height, grid.width) == ((256, 455), 256, 454)
    assert default.grid(1080, 1920) == grid
    for resolution in ((256, 256), (320, 512)):
        at_size = replace(default, short_side=resolution[0]).grid(720, 1280)
        stored = (at_size.height, at_size.width)
        assert framing_for(*stored, resolution).resized == stored, "only cut, not resampled"
    assert default.grid(256, 384).resized == (256, 384), "smaller frames are stored as they are"


@pytest.mark.parametrize(
    ("key", "value"), [("short_side", 255), ("b_frames", 17), ("jpeg_quality", 0), ("crf", 52), ("codec", "av1")]
)
def test_wrong_formats_are_refused_by_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"pack.frame_format.*{key}"):
        settings(compose_config("pack", [f"pack.frame_format.{key}={value}"]).pack, PackSettings, "pack")
