"""The page in a real browser: videos seek to the right frame, the scene turns, a click draws the right line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from tests.chromium import Seen, canvas_pixels, chromium_page, video_level, wait_until
from tests.data_pipeline.raw_folders import clips_folder
from tests.data_pipeline.view.pages import data_of, line, sections, write

pytestmark = pytest.mark.browser

ALERT = '<img src=x onerror="window.attacked = true"><script>window.attacked = true</script>'


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Path, Seen]]:
    """A page of two clips, one with a second of 60 frames and markup for a caption; what the browser asked for."""
    folder = tmp_path_factory.mktemp("browser")
    raw = clips_folder(folder / "raw", clips=2, frames=40)
    (raw / "captions.json").write_text(json.dumps({"clip0.mp4": [ALERT], "clip1.mp4": ["a hall"]}))
    write(raw, folder / "page.html")
    with chromium_page() as (page, seen):
        page.goto((folder / "page.html").as_uri())
        wait_until(page, "'clip0' in window.cami2vView.clips && 'clip1' in window.cami2vView.clips")
        yield page, folder / "page.html", seen


def pixels(page: Page, selector: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.locator(selector).first.screenshot())).convert("RGB"), np.int64)


def overlay(page: Page, panel: str) -> np.ndarray:
    """What is drawn over a frame, RGBA."""
    return canvas_pixels(page, f"#clip-clip0 .{panel} canvas")


def test_nothing_is_loaded_and_no_markup_runs(opened: tuple[Page, Path, Seen]) -> None:
    page, path, seen = opened
    assert page.evaluate("window.attacked") is None
    assert page.locator(".caption").first.inner_text() == ALERT
    assert seen.asked == [path.as_uri()]


def test_videos_show_the_frame_that_is_asked_for(opened: tuple[Page, Path, Seen]) -> None:
    page, _, _ = opened
    for frame in (0, 7, 8, 39, 20):
        page.evaluate("frame => window.cami2vView.clips.clip0.show(1, frame)", frame)
        level = video_level(page, "#clip-clip0 .second video")
        assert round((level - 4) / 5) == frame
        assert page.locator("#clip-clip0 .second figcaption").inner_text() == f"frame {frame}"


def test_a_click_draws_the_epipolar_line_in_the_other_frame(opened: tuple[Page, Path, Seen]) -> None:
    page, path, _ = opened
    scene: dict[str, Any] = data_of(sections(path)["clip0"])["scene"]
    for first, second, u, v in ((0, 13, 0.25, 0.75), (30, 5, 0.6, 0.4)):
        page.evaluate(f"window.cami2vView.clips.clip0.show(0, {first})")
        page.evaluate(f"window.cami2vView.clips.clip0.show(1, {second})")
        page.locator("#clip-clip0 .clear").click()
        assert not overlay(page, "second").any()
        canvas = page.locator("#clip-clip0 .first canvas")
        box = canvas.bounding_box()
        assert box is not None
        canvas.click(position={"x": u * box["width"], "y": v * box["height"]})
        expected = line(scene, first, second, u, v)
        script = (
            f"window.cami2vView.epipolarLine(window.cami2vView.clips.clip0.data.scene, {first}, {second}, {u}, {v})"
        )
        np.testing.assert_allclose(page.evaluate(script), expected, rtol=1e-9, atol=1e-12)
        drawn = overlay(page, "second")
        rows, columns = np.nonzero(drawn[..., 3] > 128)
        assert len(columns) > 50
        height, width = drawn.shape[:2]
        a, b, c = expected / [width, height, 1]
        away = np.abs(a * (columns + 0.5) + b * (rows + 0.5) + c) / np.hypot(a, b)
        assert away.max() < 2.5, "pixels of the line are on the line"
        rows, columns = np.nonzero(overlay(page, "first")[..., 3] > 128)
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], [u * width, v * height], atol=1)


def test_the_scene_turns_and_plays(opened: tuple[Page, Path, Seen]) -> None:
    page, _, seen = opened
    world = page.locator("#clip-clip0 .world")
    before = pixels(page, "#clip-clip0 .world")
    box = world.bounding_box()
    assert box is not None
    x, y = box["x"] + 100, box["y"] + 100
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 25, steps=3)
    page.mouse.up()
    turned = pixels(page, "#clip-clip0 .world")
    assert (before != turned).any(axis=-1).mean() > 0.01
    page.mouse.move(x + 120, y, steps=2)
    assert np.array_equal(turned, pixels(page, "#clip-clip0 .world")), "it stays when the button is up"
    page.evaluate("window.cami2vView.clips.clip0.show(0, 0)")
    page.locator("#clip-clip0 .play").click()
    wait_until(page, "window.cami2vView.clips.clip0.panels[0].frame === 39")
    assert seen.errors == []
