"""Lists of clips in torch files, whatever else is pickled beside them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from launch.published_metadata import PublishedClip, read_published_metadata

CLIP = PublishedClip(name="test/abc.mp4", caption="a room")


class Harmful:
    """Removes the folder it is told when unpickled by pickle itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.rmdir, (str(self.folder),)


@pytest.mark.parametrize(
    "held",
    [
        [{"video_path": "test/abc.mp4", "caption": "a room", "per_frame_scale": torch.ones(3)}],
        {"test/abc.mp4": {"long_caption": " a room ", "poses": torch.eye(4)}},
        {"stride": 8, "clips": [{"clip_path": "test/abc.mp4", "captions": ["a room", "another"]}]},
    ],
)
def test_forms_that_are_understood(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "test.pth")
    assert read_published_metadata(tmp_path / "test.pth") == (CLIP,)
    assert CLIP.ids == ("test-abc", "abc")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    torch.save([{"video_path": "test/abc.mp4", "caption": "a room", "extra": Harmful(victim)}], tmp_path / "test.pth")
    assert read_published_metadata(tmp_path / "test.pth") == (CLIP,)
    assert victim.is_dir()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (torch.ones(3), "expected a list of clips"),
        ([], "holds no clips"),
        ([{"caption": "a room"}], "entry 0: has no name of a clip; expected one of video_path"),
        (["abc"], "entry 0: a str, expected a record with video_path"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, held: Any, message: str) -> None:
    torch.save(held, tmp_path / "test.pth")
    with pytest.raises(ValueError, match=message):
        read_published_metadata(tmp_path / "test.pth")
