"""What all tests share."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU on a machine without one; nothing else is ever skipped for us."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, this machine has none"))
    if hasattr(config, "workerinput"):
        _long_files_first(items)


def _long_files_first(items: list[pytest.Item]) -> None:
    """Order whole files by a guess at their length: one of minutes, begun last, would keep one process alone."""
    seconds: Counter[Path] = Counter()
    for item in items:
        guess = {"slurm": 100, "slow": 20}
        seconds[item.path] += max((guess[mark.name] for mark in item.iter_markers() if mark.name in guess), default=1)
    items.sort(key=lambda item: -seconds[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what passing tests have put into record_property("shown", ...): curves and tables people want to see."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "shown":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))
