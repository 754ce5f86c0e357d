"""Shard indexes, and that damage is never read over."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.index import build_index, index_path, read_index, read_sample, write_index
from data_pipeline.shard_writer import write_shard


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    samples = [
        (f"clip{n}", 16, {"mp4": bytes([n]) * (3000 + n), "cameras.npz": b"npz" * 50, "json": b"{}"}) for n in range(20)
    ]
    entry = write_shard(tmp_path / "train-000000.tar", samples)
    assert (entry.samples, entry.shortest_clip_frames) == (20, 16)
    return tmp_path / "train-000000.tar"


def test_any_sample_reads_alone(shard: Path) -> None:
    index = read_index(shard)
    assert index == build_index(shard)
    assert [sample.key for sample in index] == [f"clip{n}" for n in range(20)]
    assert read_sample(shard, index[13])["mp4"] == bytes([13]) * 3013


def test_a_tar_without_index_still_reads(shard: Path, caplog: pytest.LogCaptureFixture) -> None:
    index = read_index(shard)
    index_path(shard).unlink()
    with caplog.at_level(logging.WARNING):
        assert read_index(shard) == index
    assert "no index file" in caplog.text


def test_a_flipped_bit_is_noticed(shard: Path) -> None:
    index = read_index(shard)
    data = bytearray(shard.read_bytes())
    data[index[7].members["mp4"].offset + 5] ^= 1
    shard.write_bytes(data)
    assert read_sample(shard, index[6])["json"] == b"{}"
    with pytest.raises(ValueError, match=r"train-000000.tar sample clip7: .mp4 is damaged"):
        read_sample(shard, index[7])


def test_a_missing_member_is_named(shard: Path) -> None:
    sample = read_index(shard)[3]
    poor = replace(sample, members={"json": sample.members["json"]})
    with pytest.raises(ValueError, match=r"sample clip3: has no .mp4"):
        read_sample(shard, poor)


def test_a_damaged_header_does_not_end_the_archive(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    at = read_index(shard)[10].members["cameras.npz"].offset - 512
    data[at : at + 400] = b"\xff" * 400
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="train-000000.tar: "):
        build_index(shard)


def test_a_cut_tar_is_noticed(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:30000])
    with pytest.raises(ValueError, match="train-000000.tar: "):
        build_index(shard)
    with pytest.raises(ValueError, match="made for a tar of"):
        read_index(shard)


@pytest.mark.parametrize("content", ["", "[]", '{"bytes": 3}', '{"bytes": 3, "samples": [{"key": "a"}]}'])
def test_a_broken_index_is_named(shard: Path, content: str) -> None:
    index_path(shard).write_text(content)
    with pytest.raises(ValueError, match=r"train-000000.index.json: not a shard index"):
        read_index(shard)


def test_index_file_is_small_and_plain(shard: Path) -> None:
    write_index(shard, read_index(shard))
    content = json.loads(index_path(shard).read_text())
    assert content["shard"] == "train-000000.tar"
    assert content["bytes"] == shard.stat().st_size
    assert set(content["samples"][0]["members"]) == {"mp4", "cameras.npz", "json"}
