"""Frozen split lists: exactly what they name is in their split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from data_pipeline.index import read_index
from data_pipeline.manifest import read_manifest
from data_pipeline.splits import assign_splits, read_split_lists
from tests.data_pipeline.raw_folders import clips_folder, pack_quietly, write_poses

FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}
CLIPS: dict[str, tuple[str, str | None]] = {f"{source}{n}": (source, None) for source in "abcdef" for n in range(2)}


def clips_of(folder: Path, split: str) -> set[str]:
    return {sample.key for shard in folder.glob(f"{split}-*.tar") for sample in read_index(shard)}


def test_a_set_with_frozen_test_clips(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=6)
    frozen = tmp_path / "frozen.txt"
    frozen.write_text("# by source, by clip, absent\nsrc2\n\nclip4\nsrc77\n")
    result = pack_quietly(raw, tmp_path / "set", splits=FRACTIONS, split_lists={"test": str(frozen), "train": None})
    assert clips_of(tmp_path / "set", "test") == {"clip2", "clip4"}
    splits = read_manifest(tmp_path / "set").splits
    assert splits["test"].sources == ("src2", "src4")
    assert sum(split.samples for split in splits.values()) == 6
    assert {name for name, split in splits.items() for shard in split.shards if len(shard.sha256) == 64} == set(
        FRACTIONS
    )
    report = json.loads((tmp_path / "set" / "pack_report.json").read_text())
    assert report["listed_but_absent"] == {"test": ["src77"]}
    assert result.report is not None
    assert "1 ids listed for test are not in the set (src77)" in result.report.lines()


def test_other_clips_of_a_listed_clips_source_stop_or_are_left_out(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=4)
    write_poses(raw / "pose_files" / "clip3.txt", 12, source="src2")
    (tmp_path / "frozen.txt").write_text("clip2\n")
    lists = {"test": str(tmp_path / "frozen.txt")}
    with pytest.raises(ValueError, match=r"1 clips fit no split; the first is clip3: its source video src2 is in test"):
        pack_quietly(raw, tmp_path / "set", split_lists=lists)
    result = pack_quietly(raw, tmp_path / "set", split_lists=lists, on_unlisted_clip="drop")
    assert clips_of(tmp_path / "set", "test") == {"clip2"}
    assert clips_of(tmp_path / "set", "train") == {"clip0", "clip1"}
    assert result.report is not None
    assert "  not in the list of their split: 1 (clip3)" in result.report.lines()
    assert json.loads((tmp_path / "set" / "pack_report.json").read_text())["clips_packed"] == 3


def test_the_other_splits_share_the_rest_in_their_proportions() -> None:
    assigned = assign_splits(CLIPS, FRACTIONS, {"test": ["a", "b"]})
    assert {clip for clip, split in assigned.split_of.items() if split == "test"} == {"a0", "a1", "b0", "b1"}
    assert set(assigned.split_of.values()) == {"train", "validation", "test"}
    assert not assigned.unlisted


def test_a_list_is_above_the_folders_splits() -> None:
    clips: dict[str, tuple[str, str | None]] = {"a0": ("a", "train"), "b0": ("b", "test"), "c0": ("c", "train")}
    assigned = assign_splits(clips, FRACTIONS, {"test": ["a0"]})
    assert assigned.split_of == {"a0": "test", "c0": "train"}
    assert list(assigned.unlisted) == ["b0"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"test": ["a"], "validation": ["a1"]}, "a1 puts clip a1 there, which is listed for test as well"),
        ({"test": ["a0"], "validation": ["a1"]}, r"splits test and validation share 1 source videos \(a\)"),
        ({"test": ["zz"]}, "none of its 1 ids is a source or clip"),
    ],
)
def test_lists_that_overlap_or_name_nothing(lists: dict[str, Sequence[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign_splits(CLIPS, FRACTIONS, lists)


def test_list_files(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(" a \n#b\n\na\nc")
    assert read_split_lists({"test": str(tmp_path / "list.txt"), "train": None}) == {"test": ("a", "c")}
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="lists nothing"):
        read_split_lists({"test": str(tmp_path / "empty.txt")})
    with pytest.raises(ValueError, match=r"pack.split_lists.test=.*not a readable text file"):
        read_split_lists({"test": str(tmp_path / "absent.txt")})
