"""The page of a path: one file, with the numbers of its cameras; in a browser it turns and plays."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from cami2v.trajectories.choose import choose
from cami2v.trajectories.scene_page import SeenImage, scene_page, write_scene
from cami2v.trajectories.trajectory import Trajectory
from tests.chromium import chromium_page, video_level, wait_until

ATTACK = "<script>window.attacked = true</script>"


def cameras(frames: int = 6) -> Trajectory:
    path = choose("orbit_right", frames=frames, extent=1.0)
    intrinsics = torch.tensor([0.5, 0.8, 0.5, 0.5], dtype=torch.float64).repeat(frames, 1)
    return Trajectory(world_to_camera=path.world_to_camera, intrinsics_normalized=intrinsics)


def seen(frames: int = 6) -> SeenImage:
    """Every frame has a grey level of its own."""
    video = np.stack([np.full((32, 48, 3), 20 + 40 * number, np.uint8) for number in range(frames)])
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)).double() + torch.tensor([0, 0, 1.0])
    return SeenImage(points=points, colours=torch.zeros(50, 3), video=video)


def write(path: Path, image: SeenImage | None) -> None:
    write_scene(
        path, cameras(), title=ATTACK, condition_frame=2, facts=[("source", ATTACK)], seen=image, frames_per_second=8.0
    )


def test_the_page_holds_the_cameras_and_loads_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a" / "page.html", seen())
    text = (tmp_path / "a" / "page.html").read_text()
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["page.html"]
    assert ATTACK not in text
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", text)
    found = re.search(r'class="trajectory-data">(.*?)</script>', text)
    assert found is not None
    data = json.loads(found[1])
    centres = np.array(data["scene"]["centres"])
    np.testing.assert_allclose(centres[2], 0, atol=1e-9, err_msg="the condition frame is the origin")
    assert data["frames"] == 6
    points = np.frombuffer(base64.b64decode(data["cloud"]["points"]), "<f4").reshape(-1, 3)
    np.testing.assert_allclose(points, seen().points, atol=1e-6)
    write(tmp_path / "bare.html", None)
    assert "<video" not in (tmp_path / "bare.html").read_text()
    embedded = scene_page(
        cameras(), title=ATTACK, condition_frame=2, facts=[], seen=None, frames_per_second=8.0, embedded=True
    )
    assert "<svg" in (tmp_path / "bare.html").read_text()
    assert "<svg" not in embedded
    assert ATTACK not in embedded


@pytest.mark.browser
def test_the_page_turns_and_plays_in_a_browser(tmp_path: Path) -> None:
    write(tmp_path / "page.html", seen())
    with chromium_page(width=1200) as (page, browser):
        page.goto((tmp_path / "page.html").as_uri())
        world = page.locator(".world")
        before = world.screenshot()
        world.focus()
        page.keyboard.press("ArrowRight")
        assert world.screenshot() != before
        page.evaluate("window.cami2vTrajectory.show(4)")
        assert page.locator("output").inner_text() == "frame 4 of 0 to 5"
        assert abs(video_level(page, "video") - 180) < 6, "the video shows the frame of the slider"
        page.locator(".play").click()
        wait_until(page, "window.cami2vTrajectory.frame === 5")
        assert page.evaluate("window.attacked") is None
    assert browser.errors == []
    assert browser.asked == [(tmp_path / "page.html").as_uri()]
