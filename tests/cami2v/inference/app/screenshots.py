"""The pictures of docs/app.md: `python -m tests.cami2v.inference.app.screenshots docs/app`, after `make demo`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.cami2v.inference.app.visitor import scene_frame, served, wait_for_state, wait_for_text
from tests.chromium import chromium_page, wait_until

SHOWN = {"desktop": (1280, 1860), "phone": (390, 3560)}
"""Widths and heights of the windows: a page is photographed in one piece."""


def main() -> None:
    """Visit the app as both, make two videos with the demo's model, and photograph the page."""
    (folder,) = (Path(argument) for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, served(Path(place)) as address:
        for name, (width, height) in SHOWN.items():
            _photograph(address, folder / f"{name}.png", width, height)


def _photograph(address: str, path: Path, width: int, height: int) -> None:
    with chromium_page(width=width, height=height) as (page, _):
        page.goto(address)
        wait_until(page, "document.querySelector('#preview iframe') !== null")
        page.locator("#examples button").first.click()
        wait_for_text(page, "#preview-facts", "the depth map")
        for _ in range(2):
            page.locator("#generate").click()
            wait_for_state(page, "running")
            wait_for_state(page, "done", "failed")
            page.locator("#other-seed").click()
        wait_until(page, "document.querySelector('#video video')?.readyState >= 2")
        page.locator("#side-by-side").click()
        wait_until(page, "document.querySelector('#compared video')?.readyState >= 2")
        scene_frame(page).evaluate("window.cami2vTrajectory.show(4)")
        page.mouse.move(2, 2)
        page.wait_for_timeout(800)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
        page.screenshot(path=path)
    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(path, optimize=True)


if __name__ == "__main__":
    main()
