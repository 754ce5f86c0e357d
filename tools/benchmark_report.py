"""What a benchmark found, as Markdown tables and as JSON, with the machine it was found on."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = ("torch", "av", "decord")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of text under a title; the first column is a name."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def markdown(self) -> str:
        """Return a Markdown table, padded so that it also reads as plain text."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        lines = [self._line(self.columns, widths), "|".join(["", *("-" * (width + 2) for width in widths), ""])]
        lines += [self._line(row, widths) for row in self.rows]
        return "\n".join([f"**{self.title}**", "", *lines, *("", *self.notes)[: 1 + len(self.notes)]]).rstrip()

    @staticmethod
    def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "| " + " | ".join(padded) + " |"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Tables, and the numbers behind them."""

    name: str
    tables: Sequence[Table]
    numbers: dict[str, Any]
    figures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by title, for the page."""
    machine: dict[str, Any] = field(default_factory=lambda: machine())

    def text(self) -> str:
        """Return what is printed."""
        return "\n\n".join(table.markdown() for table in self.tables)

    def json(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        return {"benchmark": self.name, "machine": self.machine, **self.numbers}


def write_json(reports: Sequence[Report], path: Path) -> None:
    """Write the numbers of all reports, by name."""
    path.write_text(json.dumps({report.name: report.json() for report in reports}, indent=1) + "\n", encoding="utf-8")


def write_markdown(reports: Sequence[Report], folder: Path, command: str) -> Path:
    """Write the tables to <folder>/<date>-<hardware>.md and return the path; the same day's page is replaced."""
    said = reports[0].machine
    path = folder / f"{said['date'][:10]}-{re.sub(r'[^a-z0-9]+', '-', said['hardware'].lower()).strip('-')}.md"
    libraries = ", ".join(f"{name} {said[name]}" for name in LIBRARIES)
    head = [
        f"# Benchmark of {said['date'][:10]}: {said['hardware']}",
        f"`{command}`: {said['hardware']}, {libraries}; load {said['load']:.1f} when it began.",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    parts = [part for report in reports for part in (report.text(), *_figures(report, path))]
    path.write_text("\n\n".join([*head, *parts]) + "\n", encoding="utf-8")
    return path


def _figures(report: Report, page: Path) -> Iterator[str]:
    """Write a report's figures beside the page and yield what shows them there."""
    for number, (title, picture) in enumerate(report.figures.items()):
        file = page.with_name(f"{page.stem}-{report.name}{f'-{number + 1}' if number else ''}.png")
        file.write_bytes(picture)
        yield f"![{title}]({file.name})"


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describe where and when; `load` is how many processes wanted a core in the last minute."""
    cores = len(os.sched_getaffinity(0))
    name = torch.cuda.get_device_name() if device == "cuda" else f"{cores} cores {_processor()}"
    libraries = {library: version(library) for library in LIBRARIES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": name,
        "cores": cores,
        "load": os.getloadavg()[0],
        **libraries,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else []
    return models[0].strip() if models else platform.machine()
