"""`cami2v app` as a visitor meets it, in a real headless Chromium; nothing is asked of any other machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import FilePayload, Page

from cami2v.inference import Pipeline
from cami2v.inference.app.examples import examples
from cami2v.inference.app.replay import Replay
from cami2v.inference.app.settings import Limits
from cami2v.inference.record import frames_sha256
from tests.cami2v.inference.app.visitor import (
    choose,
    hand_in,
    scene,
    scene_frame,
    served,
    set_number,
    wait_for_state,
    wait_for_text,
)
from tests.chromium import Seen, chromium_page, wait_until

pytestmark = pytest.mark.browser

LIMITS = Limits(upload_megabytes=20, megapixels=40.0, long_side=1536, frames=64, steps=250, results=12)
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The app with nothing configured."""
    folder = tmp_path_factory.mktemp("app")
    with served(folder, f"paths.runs={folder / 'runs'}") as address:
        yield address, folder


@pytest.fixture
def opened(app: tuple[str, Path]) -> Iterator[tuple[Page, Seen, Path]]:
    """Its page, just opened; in the end nothing was asked of anybody else, and no script failed."""
    address, folder = app
    with chromium_page(width=1280) as (page, seen):
        page.goto(address)
        wait_until(page, "document.querySelector('#preview iframe') !== null")
        yield page, seen, folder
        assert seen.errors == []
        assert [url for url in seen.asked if not url.startswith((address, "data:", "about:srcdoc"))] == []


def picture(path: Path) -> Path:
    Image.open(examples()[0].picture).resize((160, 100)).save(path)
    return path


def test_from_a_picture_to_a_video_and_the_same_again(opened: tuple[Page, Seen, Path], tmp_path: Path) -> None:
    page, _, folder = opened
    assert "UNTRAINED" in page.locator("#note").inner_text()
    assert "not on this machine" in page.locator("#captioner-notice").inner_text()
    assert page.locator("#describe").is_disabled()
    hand_in(page, "#picture", picture(tmp_path / "room.png"))
    wait_for_text(page, "#preview-facts", "hangs on a wall at 1")
    before = scene(page)
    assert '"cloud":{' in before, "the picture's points are drawn"
    choose(page, "#motion", "zoom in")
    wait_for_text(page, "#preview-facts", "zoom_in: moves ahead")
    assert scene(page) != before
    frame = scene_frame(page)
    frame.evaluate("window.cami2vTrajectory.show(5)")
    assert frame.locator("output").inner_text() == "frame 5 of 0 to 7"

    page.locator("#generate").click()
    wait_for_state(page, "done", "failed")
    assert "Done in" in page.locator("#progress").inner_text()
    wait_until(page, "document.querySelector('#video video')?.readyState >= 2")
    page.evaluate("void document.querySelector('#video video').play()")
    wait_until(page, "document.querySelector('#video video').currentTime > 0")
    facts = page.locator("#facts").inner_text()
    assert "zoom_in" in facts
    assert "The camera changes nothing" in facts, "an untrained model does not pass for a controlled one"

    (kept,) = (folder / "videos").glob("*.mp4")
    replay = Replay.from_file(kept, kept.name, LIMITS)
    pipeline = Pipeline.from_pretrained(folder / "runs/app/models/untrained-cami2v")
    (again,) = pipeline.generate([replay.request], [replay.picture])
    assert "identical" in replay.verdict(frames_sha256(again.frames)), "the file repeats what the page made"
    replay.check(pipeline, "it", LIMITS)
    check_foreign_replays(replay, pipeline)

    page.locator("#replay-section button").first.click()
    hand_in(page, "#replay-file", kept)
    wait_for_text(page, "#replay-file", ".mp4")
    page.locator("#replay").click()
    wait_for_text(page, "#facts", "identical to the last bit")
    wait_until(page, "document.querySelectorAll('#compare input:checked').length === 2")
    page.locator("#side-by-side").click()
    wait_until(page, "document.querySelector('#compared video')?.readyState >= 2")


def check_foreign_replays(replay: Replay, pipeline: Pipeline) -> None:
    """What visitors hand in is not obeyed blindly."""
    request = replay.request
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": {**request.model, "sha256": "0"}}, "other weights"),
        ({"sampler": replace(request.sampler, steps=1000)}, "1000 steps; at most 250"),
        ({"height": 4096, "width": 4096}, "it makes 8 of 64x64"),
        ({"precision": "bf16"}, "made in bf16"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            replace(replay, request=replace(request, **change)).check(pipeline, "it", LIMITS)


def test_a_cancelled_run_loses_nothing(opened: tuple[Page, Seen, Path]) -> None:
    page, _, folder = opened
    made = len(list((folder / "videos").glob("*.mp4")))
    page.locator("#generate").click()
    wait_for_text(page, "#progress", "picture: none yet")
    page.locator("#examples button").first.click()
    wait_for_text(page, "#preview-facts", "the depth map")
    set_number(page, "#steps", 250)
    page.locator("#generate").click()
    wait_for_text(page, "#progress", "left")
    assert re.match(r"step \d+ of 250, about \d+ (s|min) left", page.locator("#progress").inner_text().strip())
    page.locator("#cancel").click()
    wait_for_state(page, "stopped")
    assert "Cancelled" in page.locator("#progress").inner_text()
    assert len(list((folder / "videos").glob("*.mp4"))) == made
    assert page.locator("#caption textarea").input_value().startswith("a kitchen")
    assert page.locator("#picture img").is_visible()
    page.locator("#cancel").click()
    wait_for_text(page, "#progress", "Nothing to cancel")
    set_number(page, "#steps", 1)
    page.locator("#generate").click()
    wait_for_state(page, "done", "failed")
    assert "1 steps" in page.locator("#facts").inner_text()


def test_wrong_files_are_refused(opened: tuple[Page, Seen, Path], tmp_path: Path) -> None:
    page, _, _ = opened
    hand_in(page, "#picture", picture(tmp_path / "room.png"))
    wait_until(page, "document.querySelector('#picture img')?.naturalWidth > 0")
    program = tmp_path / "holiday.png"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(4096))
    hand_in(page, "#picture", program)
    wait_for_text(page, "#picture-notice", "holiday.png: its content is an executable")
    wait_until(page, "document.querySelector('#picture img')?.naturalWidth === 160")

    large = tmp_path / "large.png"
    large.write_bytes(program.read_bytes())
    with large.open("r+b") as file:
        file.truncate(60 * MEGABYTE)
    page.reload()
    wait_until(page, "document.querySelector('#preview iframe') !== null")
    hand_in(page, "#picture", large)
    page.get_by_text("exceed the maximum allowed size").wait_for()

    upload = """async ([name, megabytes]) => { const form = new FormData();
        form.append("files", new Blob([new Uint8Array(megabytes * 2 ** 20)]), name);
        const answer = await fetch("/gradio_api/upload", { method: "POST", body: form });
        return [answer.status, await answer.text()]; }"""
    assert page.evaluate(upload, ["../../evil.png", 0])[0] == 400
    assert "leads to another folder" in page.evaluate(upload, ["..\\evil.png", 0])[1]
    assert page.evaluate(upload, ["large.png", 60])[0] == 413
    evil: FilePayload = {"name": "../../evil.png", "mimeType": "image/png", "buffer": b"x"}
    page.locator("#picture input[type=file]").set_input_files(evil)
    page.get_by_text("leads to another folder").wait_for()
    read = "async path => (await fetch(path)).status"
    for path in ("/gradio_api/file=/etc/passwd", "/gradio_api/file=http://127.0.0.1:9/", f"/gradio_api/file={program}"):
        assert page.evaluate(read, path) == 403, path
    assert page.evaluate("async () => (await fetch('/gradio_api/vibe-code', {method: 'POST'})).status") == 404


def test_paths_from_tables_and_files(opened: tuple[Page, Seen, Path], tmp_path: Path) -> None:
    page, _, _ = opened
    page.locator("#kind label", has_text="Key-frames").click()
    wait_for_text(page, "#preview-facts", "key-frames")
    page.locator("#more").click()
    wait_for_text(page, "#table", "0.6667")
    page.locator("#kind label", has_text="File").click()
    wait_for_text(page, "#path-notice", "no file yet")
    path = tmp_path / "walk.txt"
    rows = [f"{frame} 0.5 0.8 0.5 0.5 0 0 1 0 0 {-frame / 10} 0 1 0 0 0 0 1 0" for frame in range(5)]
    path.write_text("\n".join(["https://example.org", *rows]) + "\n")
    hand_in(page, "#path-file", path)
    wait_for_text(page, "#preview-facts", "walk")
    assert "0.4 along the path" in page.locator("#preview-facts").inner_text()
    page.locator("#timing button").first.click()
    set_number(page, "#scale", 2)
    wait_for_text(page, "#preview-facts", "0.8 along the path")
    bad = tmp_path / "weights.txt"
    bad.write_bytes(b"PK\x03\x04")
    page.locator("#path-file button[aria-label='Clear']").click()
    hand_in(page, "#path-file", bad)
    wait_for_text(page, "#path-notice", "weights.txt: its content is an archive")
    assert "0.8 along the path" in page.locator("#preview-facts").inner_text(), "the last path stays"


def test_it_fits_a_phone(app: tuple[str, Path]) -> None:
    with chromium_page(width=390, height=844) as (page, _):
        page.goto(app[0])
        page.locator("#examples button").first.click()
        wait_for_text(page, "#preview-facts", "the depth map")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        tops = [
            page.locator(f"#section-{name}").bounding_box()["y"]  # type: ignore[index]  # it is visible
            for name in ("picture", "path", "preview", "video", "result", "gallery")
        ]
        assert tops == sorted(tops)
