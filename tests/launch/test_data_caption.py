"""`cami2v data caption` as a user types it: a raw folder, a model, and the caption is in the shard."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from data_pipeline.index import read_index, read_sample
from data_pipeline.manifest import read_manifest
from launch import pack
from launch.data import main
from tests.data_pipeline.raw_folders import clips_folder
from tests.tiny_captioner import write_tiny_captioner

SMALL = ["caption.processes=1", "caption.show.frames=2", "captioner.device=cpu", "captioner.max_new_tokens=6"]


def cami2v_data_caption(monkeypatch: pytest.MonkeyPatch, *overrides: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cami2v data", "caption", *SMALL, *overrides])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def stored_captions(folder: Path) -> dict[str, list[str]]:
    found = {}
    for split in read_manifest(folder).splits.values():
        for shard in split.shards:
            for sample in read_index(folder / shard.name):
                found[sample.key] = json.loads(read_sample(folder / shard.name, sample)["json"])["captions"]
    return found


def test_a_raw_folder_is_captioned_and_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=4)
    (raw / "captions.json").write_text('{"clip1.mp4": ["by hand"]}')
    (raw / "video_clips" / "clip3.mp4").write_bytes(b"no video")
    model = write_tiny_captioner(tmp_path / "model")
    assert cami2v_data_caption(monkeypatch, f"source={raw}", f"captioner.model={model}", "caption.batch=2") == 0
    printed = capsys.readouterr().out
    assert "4 clips: 2 captioned now, 0 by an earlier run, 1 had a caption\n  video_unreadable: 1, first: " in printed
    assert f"captions: {raw}/captions-generated.json  (cami2v pack source={raw})" in printed
    made = json.loads((raw / "captions-generated.json").read_text())
    assert sorted(made) == ["clip0.mp4", "clip2.mp4"]
    (line, _) = map(json.loads, (raw / "generated_captions" / "0-of-1.jsonl").open())
    assert line["made_with"]["model"] == str(model)
    assert line["made_with"]["prompt"].startswith("Describe what this video shows")

    packing = [f"source={raw}", f"output={tmp_path}/set", "pack.min_frames=4", "pack.processes=1"]
    dropping = ["pack.on_bad_clip=drop", "pack.max_drop_rate=0.5"]
    monkeypatch.setattr(sys, "argv", ["cami2v pack", *packing, *dropping])
    pack.main()
    stored = stored_captions(tmp_path / "set")
    assert stored == {"clip0": made["clip0.mp4"], "clip1": ["by hand"], "clip2": made["clip2.mp4"]}
    assert all(text.strip() for texts in stored.values() for text in texts)


def test_published_captions_need_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = clips_folder(tmp_path / "raw", clips=2)
    published = (raw / "captions.json").rename(tmp_path / "train_captions.json")
    assert cami2v_data_caption(monkeypatch, f"source={raw}", f"captions={published}") == 0
    assert "2 clips: 2 found in the published captions\n" in capsys.readouterr().out
    assert json.loads((raw / "captions-published.json").read_text())["clip1.mp4"] == ["room 1", "place 1"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "source: required and not set"),
        (
            ["source=RAW", "captioner.model=owner/none-such"],
            "captioner.model=owner/none-such: not on this machine, and",
        ),
        (["source=RAW", "caption.batch=0"], "caption.batch=0: must be at least 1"),
        (["source=RAW", "caption.task=2"], "caption.task=2: is one of how many? set caption.tasks"),
        (["source=SET"], "is a shard set, whose captions are inside"),
        (["source=RAW", "captioner.modle=x"], "captioner.modle=x: no such key; did you mean"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    raw = clips_folder(tmp_path / "raw", clips=1)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.json").write_text("{}")
    given = [each.replace("RAW", str(raw)).replace("SET", str(tmp_path / "set")) for each in overrides]
    assert cami2v_data_caption(monkeypatch, *given) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    assert not (raw / "generated_captions").exists()
