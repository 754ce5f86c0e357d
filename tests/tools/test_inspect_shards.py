"""The report on a shard set, and what it says of damage."""

from __future__ import annotations

import pytest

from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tools.inspect_shards import main


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    splits = ["train", "train", "train", "test"]
    pack_quietly(clips_folder(folder / "raw", clips=4, frames=6, splits=splits), folder / "shards")
    return folder / "shards"


def test_manifest_and_samples_are_shown(packed, capsys):
    assert main([str(packed), "--samples", "2", "--verify"]) == 0
    text = capsys.readouterr().out
    assert "3 clips from 3 sources" in text
    assert "train: 2 of 3" in text
    assert "test: 1 of 1" in text
    row = next(line for line in text.splitlines() if line.startswith("clip3"))
    # raw_folders.camera turns 0.02 rad and moves 0.1 a frame, over five steps; fx 0.5 is 90 degrees wide.
    assert row.split()[:4] == ["clip3", "src3", "6", "64x36"]
    assert "90 deg" in row
    assert "5.7 deg" in row
    assert row.endswith("room 3")


def test_one_split_is_shown_alone(packed, capsys):
    assert main([str(packed), "--split", "test"]) == 0
    assert "train: " not in capsys.readouterr().out
    assert main([str(packed), "--split", "tset"]) == 2
    assert "no such split (it has: test, train)" in capsys.readouterr().err


def test_what_is_no_shard_set_is_one_line(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_damage_is_found(packed, tmp_path, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in packed.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    shard = next(iter(sorted(copy.glob("test-*.tar"))))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert main([str(copy), "--verify"]) == 1
    assert f"DAMAGED {shard}: sha256" in capsys.readouterr().out
