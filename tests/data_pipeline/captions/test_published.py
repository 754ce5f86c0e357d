"""Captions in the forms they are published in reach the clips they are for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.captions.published import convert_captions
from data_pipeline.layouts.detect import open_source
from tests.data_pipeline.raw_folders import READING, clips_folder, write_poses

JSON_MAPPING = '{"clip0.mp4": ["a room", " "], "train/clip1.mp4": "a hall", "zzz.mp4": ["elsewhere"]}'
FORMS = {
    "captions_of_others.json": JSON_MAPPING,
    "list.json": '[{"clip_path": "video_clips/clip0.mp4", "caption": "a room"}, {"clip_path": "clip1.mp4", '
    '"caption": "a hall"}, {"clip_path": "zzz.mp4", "caption": "elsewhere"}]',
    "lines.jsonl": '{"video": "clip0.mp4", "text": "a room"}\n\n{"video": "clip1", "text": ["a hall"]}\n'
    '{"video": "zzz", "text": "elsewhere"}\n',
    "table.csv": 'file_path,caption\nclip0.mp4,a room\nclip1.mp4,"a hall"\nzzz,elsewhere\n',
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = clips_folder(tmp_path / "raw", clips=3)
    (folder / "captions.json").unlink()
    return folder


@pytest.mark.parametrize("name", [*FORMS, "valid_metadata"])
def test_every_form_reaches_the_clips(name: str, raw: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if name in FORMS:
        path.write_text(FORMS[name])
    else:
        for clip, text in (("clip0", "a room"), ("clip1", "a hall"), ("zzz", "elsewhere")):
            write_poses(path / "train" / f"{clip}.txt", 3, source="x", headers=["videos/x.mp4", text])
    conversion = convert_captions([path], open_source(raw, READING).clips, raw)
    captions = {clip.clip_id: clip.captions for clip in open_source(raw, READING).clips}
    assert captions == {"clip0": ("a room",), "clip1": ("a hall",), "clip2": ()}
    assert (conversion.captioned, conversion.without) == (2, ("clip2",))
    assert [Path(each).stem for each in conversion.foreign] == ["zzz"]
    assert json.loads((raw / "captions-published.json").read_text()) == {
        "clip0.mp4": ["a room"],
        "clip1.mp4": ["a hall"],
    }


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.json", None, "no such file or folder"),
        ("x.txt", "clip0 a room", "is no .json, .jsonl or .csv file"),
        ("x.json", "[{]", "docs/caption.md"),
        ("x.json", '[{"caption": "a room"}]', "entry 0: has no name of a clip"),
        ("x.json", '{"other.mp4": ["a room"]}', "none of a clip here; they are for other.mp4, the clips are clip0"),
        ("x.json", '{"clip0": [1]}', "must be a list of strings"),
    ],
)
def test_what_holds_no_captions_is_one_line(
    name: str, content: str | None, message: str, raw: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        convert_captions([tmp_path / name], open_source(raw, READING).clips, raw)
    assert "\n" not in str(caught.value)
    assert not (raw / "captions-published.json").exists()
