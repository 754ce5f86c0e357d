"""The page shows what is in the data: cameras as cami2v.geometry has them, words as words, faults as findings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.geometry.cameras import relative_poses
from cami2v.geometry.epipolar import fundamental_matrices
from cami2v.video import read_frames
from data_pipeline.realestate10k.layout import find_clips
from data_pipeline.synthetic.write import write_raw_dataset
from tests.data_pipeline.raw_folders import clips_folder, levels_of, pack_quietly
from tests.data_pipeline.synthetic.worlds import small_world
from tests.data_pipeline.view.pages import data_of, line, sections, write

HEIGHT, WIDTH = 96, 160


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    settings = small_world(rooms=1, sources={"train": 2, "test": 1}, clips_per_source=1, frames_per_clip=6)
    write_raw_dataset(folder / "raw", settings, 1, None)
    return folder / "raw"


@pytest.fixture(scope="module")
def page(world: Path) -> Path:
    write(world, world.parent / "page.html", compare=True)
    return world.parent / "page.html"


def test_lines_are_those_of_the_library(world: Path, page: Path) -> None:
    shown = sections(page)
    for clip in find_clips(world).clips:
        track = clip.track()
        scene = data_of(shown[clip.clip_id])["scene"]
        relative = relative_poses(torch.from_numpy(track.world_to_camera)[None], torch.zeros(1, dtype=torch.int64))
        intrinsics = torch.from_numpy(track.intrinsics_normalized)[None]
        fundamental = fundamental_matrices(relative, intrinsics, perturbation=None)[0].numpy()
        for first, second in ((0, 4), (5, 2)):
            ours, theirs = line(scene, first, second, 0.3, 0.8), fundamental[first, second] @ [0.3, 0.8, 1]
            # A line has no length: the two differ by the determinant of the calibration.
            unit = theirs / np.linalg.norm(theirs)
            np.testing.assert_allclose(ours / np.linalg.norm(ours) * np.sign(ours @ unit), unit, atol=1e-7)


def test_true_matches_lie_on_their_lines(world: Path, page: Path) -> None:
    """A pixel's partner is known from the rendered depth: it must be within a pixel of the line on the page."""
    moved = 0
    for clip in find_clips(world).clips:
        scene = data_of(sections(page)[clip.clip_id])["scene"]
        track = clip.track()
        depth = np.load(world / "depth" / str(clip.split) / f"{clip.clip_id}.npz")["depth_millimetres"]
        poses, (fx, fy, cx, cy) = track.world_to_camera, track.intrinsics_normalized[0]
        for row, column in ((10, 20), (50, 80), (90, 150), (30, 120)):
            u, v = (column + 0.5) / WIDTH, (row + 0.5) / HEIGHT
            metres = depth[1, row, column] / 1000
            point = np.array([(u - cx) / fx, (v - cy) / fy, 1]) * metres / clip.metric_scale
            seen = poses[4, :, :3] @ (poses[1, :, :3].T @ (point - poses[1, :, 3])) + poses[4, :, 3]
            partner = np.array([fx * seen[0] / seen[2] + cx, fy * seen[1] / seen[2] + cy, 1])
            a, b, c = line(scene, 1, 4, u, v)
            away = abs(np.dot([a, b, c], partner)) / np.hypot(a / WIDTH, b / HEIGHT)
            assert away < 1
            moved += np.hypot(*((partner[:2] - [u, v]) * [WIDTH, HEIGHT])) > 1
    assert moved >= 4, "the test shows nothing where nothing moves"


def test_real_matches_and_frames_are_embedded(page: Path) -> None:
    shown = [data_of(section) for section in sections(page).values()]
    matched = [each["matches"] for each in shown if each["matches"]]
    assert len(matched) >= 2
    for matches in matched:
        assert matches["frames"] == [0, 2]
        assert matches["median_pixels"] < 1
        assert len(matches["points"]) == len(matches["partners"]) <= 10
    for each in shown:
        assert read_frames(each["video"]).shape == (6, HEIGHT, WIDTH, 3)


def test_the_page_loads_nothing_and_takes_words_for_words(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=2)
    evil = '</script><script>alert("1")</script><img src=x onerror=alert(2)> & "quotes"'
    (raw / "captions.json").write_text(json.dumps({"clip0.mp4": [evil], "clip1.mp4": ["a hall", "a corridor"]}))
    poses = raw / "pose_files" / "clip1.txt"
    poses.write_text(poses.read_text().replace("watch?v=src1", "watch?v=<b>src1</b>"))
    result = write(raw, tmp_path / "page.html")
    assert (result.clips, result.without_frames) == (2, 0)
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "<b>" not in text
    assert "&lt;img src=x onerror=alert(2)&gt; &amp; &quot;quotes&quot;" in text
    assert "<dd>&lt;b&gt;src1&lt;/b&gt;</dd>" in text
    assert set(re.findall(r"""\b(?:src|href)="([^"]*)""", text)) == {"#clip-clip0", "#clip-clip1"}
    assert not re.search(r"url\(|@import|fetch\(|import\(", text)
    assert "http:" not in text
    assert "https:" not in text
    assert str(tmp_path) not in text
    assert "default-src 'none'" in text


def test_a_long_clip_is_thinned_and_keeps_its_cameras(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=1, frames=12)
    write(raw, tmp_path / "page.html", max_frames=5)
    (section,) = sections(tmp_path / "page.html").values()
    data = data_of(section)
    assert data["frames"] == [0, 3, 6, 9]
    assert levels_of(read_frames(data["video"])) == [0, 3, 6, 9]
    assert data["fps"] == 10
    assert "<dt>frames</dt><dd>12, every 3rd shown</dd>" in section
    track = find_clips(raw).clips[0].track()
    centres = np.stack([-pose[:, :3].T @ pose[:, 3] for pose in track.world_to_camera[::3]])
    expected = (centres - centres[0]) @ track.world_to_camera[0, :, :3].T
    np.testing.assert_allclose(data["scene"]["centres"], expected, atol=1e-9)


def test_faults_are_on_the_page_and_stop_nothing(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=3)
    (raw / "video_clips" / "clip1.mp4").write_bytes(b"no video")
    poses = raw / "pose_files" / "clip2.txt"
    poses.write_text(poses.read_text().replace(" 0.888888889 ", " 1.333333333 "))
    result = write(raw, tmp_path / "page.html")
    assert (result.clips, result.without_frames, result.findings) == (3, 1, 2)
    shown = sections(tmp_path / "page.html")
    assert 'class="error">error: video_unreadable' in shown["clip1"]
    assert "Its frames cannot be shown." in shown["clip1"]
    assert 'class="warning">warning: pixels_squashed: pixels 1.500 times as wide as high' in shown["clip2"]
    assert "width:667px;height:250px" in shown["clip2"], "the picture is shown with square pixels"
    assert "<li" not in shown["clip0"]


def test_shards_show_what_their_folder_shows(tmp_path: Path) -> None:
    raw = clips_folder(tmp_path / "raw", clips=4)
    (raw / "metric_scale.json").write_text(json.dumps({f"clip{n}": 2.0 for n in range(4)}))
    pack_quietly(raw, tmp_path / "set")
    write(raw, tmp_path / "raw.html")
    write(tmp_path / "set", tmp_path / "set.html")
    of_raw, of_set = sections(tmp_path / "raw.html"), sections(tmp_path / "set.html")
    assert of_raw.keys() == of_set.keys()
    for clip_id, section in of_set.items():
        assert data_of(section)["scene"] == data_of(of_raw[clip_id])["scene"]
        levels = np.array(levels_of(read_frames(data_of(section)["video"])))
        assert np.abs(levels - np.arange(12)).max() <= 1, "encoded twice"
        assert "<dd>2 metres per unit, path " in section
        assert f'<p class="caption">room {clip_id[-1]}</p>' in section


def test_clips_are_chosen_by_id_split_count_and_seed(tmp_path: Path) -> None:
    splits = ["train"] * 5 + ["test"]
    raw = clips_folder(tmp_path / "raw", clips=6, frames=3, splits=splits)
    page = tmp_path / "page.html"
    chosen = {}
    for seed in range(4):
        write(raw, page, split="train", count=2, seed=seed)
        chosen[seed] = tuple(sections(page))
        assert len(chosen[seed]) == 2
        assert "clip5" not in chosen[seed]
    assert len(set(chosen.values())) > 1
    write(raw, page, split="train", count=2, seed=0)
    assert tuple(sections(page)) == chosen[0]
    write(raw, page, clips=("clip4", "clip5"))
    assert list(sections(page)) == ["clip4", "clip5"]
    with pytest.raises(ValueError, match="has no clip 'clip9' .its 6 clips are clip0, clip1, clip2"):
        write(raw, page, clips=("clip9",))
    with pytest.raises(ValueError, match="select.split=validation: .* splits test, train"):
        write(raw, page, split="validation")
