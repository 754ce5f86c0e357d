"""What a visitor of `cami2v app` does, and how long they wait for it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Frame, Page

from tests.chromium import wait_until


@contextmanager
def served(folder: Path, *settings: str) -> Iterator[str]:
    """Run the command until its page is there; yield its address."""
    command = [sys.executable, "-m", "launch.app", "server.port=0", f"output={folder / 'videos'}", *settings]
    with (folder / "app.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if found := re.match(r"cami2v app: (http://127\.0\.0\.1:\d+)/", line):
                    yield found[1]
                    return
            pytest.fail(f"the app did not start:\n{(folder / 'app.log').read_text()[-2000:]}")
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()


def hand_in(page: Page, field: str, *files: Path) -> None:
    page.locator(f"{field} input[type=file]").set_input_files(list(files))


def wait_for_text(page: Page, selector: str, text: str) -> None:
    wait_until(page, f"document.querySelector({selector!r}).textContent.includes({text!r})")


def wait_for_state(page: Page, *wanted: str) -> None:
    wait_until(page, f"{list(wanted)}.includes(document.querySelector('.progress').dataset.state)")


def choose(page: Page, field: str, option: str) -> None:
    page.locator(f"{field} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def set_number(page: Page, field: str, value: int) -> None:
    box = page.locator(f"{field} input[type=number]")
    box.fill(str(value))
    box.press("Enter")


def scene(page: Page) -> str:
    return page.locator("#preview iframe").get_attribute("srcdoc") or ""


def scene_frame(page: Page) -> Frame:
    """Return the drawing of the path once its script runs."""
    for _ in range(1800):
        element = page.locator("#preview iframe").element_handle()
        frame = None if element is None else element.content_frame()
        if frame is not None and frame.evaluate("window.cami2vTrajectory !== undefined"):
            return frame
        page.wait_for_timeout(50)
    pytest.fail("after 90 s the path is not drawn")
