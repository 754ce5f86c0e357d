"""The bar of a terminal, and its absence from files."""

import io
import logging
import sys
from pathlib import Path

import pytest

from cami2v.training.callbacks.progress import ProgressBar
from tests.cami2v.training.toys import train

pytestmark = pytest.mark.usefixtures("one_process")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("watched", [True, False])
def test_a_bar_is_for_terminals_and_lines_are_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    screen = Terminal() if watched else io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    handler = logging.StreamHandler(screen)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    train(tmp_path, "single", max_steps=3, callbacks=(ProgressBar(),))
    text = screen.getvalue()
    assert "step 2/3  loss " in text
    assert ("| 3/3 [" in text) == watched
    assert root.handlers == [handler], "logging is as it was"
