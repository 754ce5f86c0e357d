"""A split that was published: the same shards pass, others are refused, and its clips stay out of training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.manifest import read_manifest
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.data_pipeline.test_loader import loader
from tools.freeze_split import main

SPLITS = ["train"] * 4 + ["test"] * 3


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw/, set/ and the file of set's test split."""
    folder = tmp_path_factory.mktemp("published")
    pack_quietly(clips_folder(folder / "raw", clips=7, splits=SPLITS), folder / "set")
    assert main([str(folder / "set"), "test", "--output", str(folder / "set.test.json")]) == 0
    return folder


def test_the_file_says_what_is_there(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = json.loads((published / "set.test.json").read_text())
    test = read_manifest(published / "set").splits["test"]
    assert content["clips"] == [batch.clip_ids[0] for batch in fixed(published / "set")]
    assert (content["samples"], content["sources"]) == (3, ["src4", "src5", "src6"])
    assert [shard["sha256"] for shard in content["shards"]] == [shard.sha256 for shard in test.shards]
    assert main([str(published / "set"), "train", "--output", str(published / "set.test.json")]) == 2
    assert "holds another split; what was published stays" in capsys.readouterr().err


def fixed(folder: Path, **changes: str) -> list:
    return list(loader(folder, split="test", **changes).fixed(count=None, rank=0, world_size=1, seed=1))


def test_the_same_shards_pass_and_others_are_refused(published: Path, tmp_path: Path) -> None:
    frozen = str(published / "set.test.json")
    assert len(fixed(published / "set", frozen_split=frozen)) == 3
    loader(published / "set", frozen_split=frozen)
    pack_quietly(published / "raw", tmp_path / "again")
    assert len(fixed(tmp_path / "again", frozen_split=frozen)) == 3
    pack_quietly(published / "raw", tmp_path / "other", default_caption="a room", seed=1)
    with pytest.raises(
        ValueError, match=r"data.frozen_split=.*holds another split test: it .* has sha256 .*, expected"
    ) as caught:
        loader(tmp_path / "other", split="test", frozen_split=frozen)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"data.frozen_split=nothing.json: not a frozen split \(FileNotFoundError"):
        loader(published / "set", frozen_split="nothing.json")
    with pytest.raises(ValueError, match=r"manifest.json: not a frozen split \(ValueError: format cami2v-posed-clips"):
        loader(published / "set", frozen_split=str(published / "set" / "manifest.json"))


def test_training_on_its_sources_is_refused_and_pack_keeps_them_out(published: Path, tmp_path: Path) -> None:
    frozen = published / "set.test.json"
    raw = clips_folder(tmp_path / "raw", clips=9)
    pack_quietly(raw, tmp_path / "leaky", splits={"train": 1.0})
    with pytest.raises(
        ValueError, match=r"split train of .*leaky has 3 source videos of the frozen split test \(src4, src5, src6\)"
    ):
        loader(tmp_path / "leaky", frozen_split=str(frozen))
    pack_quietly(raw, tmp_path / "kept_apart", splits={"train": 1.0}, split_lists={"test": str(frozen)})
    splits = read_manifest(tmp_path / "kept_apart").splits
    assert splits["test"].sources == ("src4", "src5", "src6")
    loader(tmp_path / "kept_apart", frozen_split=str(frozen))


def test_a_damaged_set_is_not_frozen(published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack_quietly(published / "raw", tmp_path / "set")
    shard = next((tmp_path / "set").glob("test-*.tar"))
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert main([str(tmp_path / "set"), "test", "--output", str(tmp_path / "x.json")]) == 2
    assert f"{shard}: missing, or not the manifest's shard" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
