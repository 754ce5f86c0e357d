"""Tables as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cami2v.evaluation.camera_effect import paragraph
from cami2v.evaluation.tables import Section, facts, sections


def markdown_report(results: Mapping[str, Any]) -> str:
    """Write the tables of `report`'s results."""
    lines = "\n".join(f"- {line}" for line in facts(results))
    parts = ["# Evaluation", paragraph(results["camera_effect"]), lines]
    return "\n\n".join([*parts, *map(markdown_section, sections(results))]) + "\n"


def markdown_section(section: Section) -> str:
    """Write a heading, its sentences and its table."""
    parts = [f"## {section.title}"]
    # One sentence is a paragraph, several are a list.
    parts += ["\n".join(f"- {text}" for text in section.text)] if len(section.text) > 1 else list(section.text)
    parts += [_table(section.header, section.rows)] if section.header else []
    return "\n\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in line) + " |" for line in lines
    )
