"""What a benchmark found, as Markdown tables and as JSON, with the machine it was found on."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
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


def add_to_page(report: Report, folder: Path, command: str) -> Path:
    """Put a report on <folder>/<date>-<hardware>.md, in the place of an earlier one of its name; return the path.

    What else was measured that day on that hardware stays. Beside the page is a .json file of the same name: all
    numbers, and what the page is written from.
    """
    page = folder / f"{report.machine['date'][:10]}-{_hyphenated(report.machine['hardware'])}.md"
    folder.mkdir(parents=True, exist_ok=True)
    stored = page.with_suffix(".json")
    sections = json.loads(stored.read_text(encoding="utf-8")) if stored.is_file() else {}
    sections[report.name] = {
        **report.json(),
        "command": command,
        "tables": [asdict(table) for table in report.tables],
        "figures": dict(_figures(report, page)),
    }
    _replace(stored, json.dumps(sections, indent=1))
    head = f"# Benchmark of {report.machine['date'][:10]}: {report.machine['hardware']}"
    parts = [part for section in sections.values() for part in _section(section)]
    _replace(page, "\n\n".join([head, *parts]))
    return page


def _section(section: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paragraphs of one report: the command with its circumstances, tables, figures."""
    said = section["machine"]
    libraries = ", ".join(f"{name} {said[name]}" for name in LIBRARIES if said.get(name))
    yield f"## {section['benchmark']}"
    yield f"`{section['command']}`, {said['date']}: {libraries}; load {said['load']:.1f} when it began."
    yield from (Table(**table).markdown() for table in section["tables"])
    yield from (f"![{title}]({file})" for title, file in section["figures"].items())


def _figures(report: Report, page: Path) -> Iterator[tuple[str, str]]:
    """Write a report's figures beside the page; yield their titles and files."""
    for number, (title, picture) in enumerate(report.figures.items()):
        file = page.with_name(f"{page.stem}-{report.name}{f'-{number + 1}' if number else ''}.png")
        file.write_bytes(picture)
        yield title, file.name


def _hyphenated(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Describe where and when; `load` is how many processes wanted a core in the last minute.

    Libraries that are not installed are None.
    """
    cores = len(os.sched_getaffinity(0))
    name = torch.cuda.get_device_name() if device == "cuda" else f"{cores} cores {_processor()}"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": name,
        "cores": cores,
        "load": os.getloadavg()[0],
        **{library: _version(library) for library in LIBRARIES},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else []
    return models[0].strip() if models else platform.machine()
