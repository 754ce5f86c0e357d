"""A comparison of evaluations as Markdown, JSON and one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cami2v.evaluation.bootstrap import Bootstrap
from cami2v.evaluation.comparison import (
    FIRST,
    SECOND,
    Difference,
    Evaluation,
    check_comparable,
    differences,
    what_differs,
)
from cami2v.evaluation.folder import write_json
from cami2v.evaluation.markdown import markdown_section
from cami2v.evaluation.tables import Section, label, number
from cami2v.html_report import HtmlReport


def compare(evaluations: Sequence[Evaluation], bootstrap: Bootstrap, *, allow_different: bool) -> dict[str, Any]:
    """Compare every other evaluation with the first.

    Raises ValueError where one is of other clips or settings, unless that is allowed: then the result says so.
    """
    first, *others = evaluations
    if not allow_different:
        for other in others:
            check_comparable(first, other)
    return {
        "evaluations": {
            each.name: {"folder": str(each.folder.root), "checkpoint": each.results["evaluation"].get("checkpoint")}
            for each in evaluations
        },
        "bootstrap": asdict(bootstrap),
        "comparisons": [_compared(first, other, bootstrap) for other in others],
    }


def write_comparison(folder: Path, comparison: Mapping[str, Any]) -> str:
    """Write comparison.json, comparison.md and comparison.html; return the Markdown."""
    write_json(folder / "comparison.json", comparison)
    parts = _sections(comparison)
    text = "\n\n".join(["# Comparison of evaluations", *map(markdown_section, parts)]) + "\n"
    (folder / "comparison.md").write_text(text, encoding="utf-8")
    page = HtmlReport("Comparison of evaluations")
    for part in parts:
        page.heading(part.title)
        page.items(part.text)
        if part.header:
            page.table(part.header, part.rows)
    page.save(folder / "comparison.html")
    return text


def _compared(first: Evaluation, second: Evaluation, bootstrap: Bootstrap) -> dict[str, Any]:
    ours, theirs = first.results, second.results
    versions = [key for key in {**ours["versions"], **theirs["versions"]} if _differ(ours, theirs, "versions", key)]
    notes = [
        f"made with different versions of {key}: {ours['versions'].get(key)} and {theirs['versions'].get(key)}"
        for key in versions
    ]
    for one, other in ((first, second), (second, first)):
        if only := [name for name in one.results["summary"] if name not in other.results["summary"]]:
            notes.append(f"only in {one.name}, not compared: {', '.join(map(label, only))}")
    return {
        "first": first.name,
        "second": second.name,
        "what_differs": what_differs(first, second),
        "notes": notes,
        "clips": len(set(first.folder.clip_ids()) & set(second.folder.clip_ids())),
        "figures": {name: ours["figures"][name] for name in ours["figures"] if name in theirs["figures"]},
        "differences": [asdict(each) for each in differences(first, second, bootstrap)],
        "distances": _distances(ours["summary"], theirs["summary"]),
    }


def _differ(ours: Mapping[str, Any], theirs: Mapping[str, Any], part: str, key: str) -> bool:
    return bool(ours[part].get(key) != theirs[part].get(key))


def _distances(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"video_set": name, "measure": measure, "first": own, "second": theirs[name]["distances"][measure]}
        for name in ours
        if name in theirs
        for measure, own in ours[name]["distances"].items()
        if measure in theirs[name]["distances"]
    ]


def _sections(comparison: Mapping[str, Any]) -> list[Section]:
    bootstrap, parts = comparison["bootstrap"], []
    rows = [[name, each["folder"], _checkpoint(each["checkpoint"])] for name, each in comparison["evaluations"].items()]
    parts.append(Section(title="What is compared", header=["name", "folder", "checkpoint"], rows=rows))
    for each in comparison["comparisons"]:
        title = f"{each['second']} minus {each['first']}"
        text = [
            f"Differences clip by clip over {each['clips']} clips that both have; in brackets the "
            f"{bootstrap['level']:.0%} confidence interval, bootstrap over clips ({bootstrap['resamples']} resamples, "
            f"seed {bootstrap['seed']}). One is called better where the interval of the mean difference leaves out "
            "zero; of many rows, some will by chance.",
            "Where failures count, a failed clip counts as a motionless camera would, or as the worst clip of both.",
        ]
        if each["what_differs"]:
            title = f"NOT EVALUATED ALIKE: {title}"
            text = [f"Not evaluated alike: {'; '.join(each['what_differs'])}. The numbers say little.", *text]
        text += [f"Note: {note}." for note in each["notes"]]
        names = {FIRST: f"{each['first']} better", SECOND: f"{each['second']} better"}
        found = [_row(Difference(**row), each["figures"], names) for row in each["differences"]]
        header = ["videos", "figure", "over", "clips", "failed"]
        header += [f"{each['first']} mean", f"{each['second']} mean", "mean difference", "median difference", "verdict"]
        parts.append(Section(title=title, text=text, header=header, rows=found))
        if each["distances"]:
            parts.append(_distance_section(each))
    return parts


def _row(row: Difference, figures: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    figure = figures[row.figure]
    unit = f" ({figure['unit']})" if figure["unit"] else ""
    arrow = "lower is better" if figure["better"] == "lower" else "higher is better"
    return [
        label(row.video_set),
        f"{figure['label']}{unit} {row.figure}, {arrow}",
        row.over,
        str(row.pairs),
        f"{row.failed_first} and {row.failed_second}",
        number(row.first_mean),
        number(row.second_mean),
        _signed(row.mean, row.mean_interval),
        _signed(row.median, row.median_interval),
        names.get(row.better, row.better),
    ]


def _signed(value: float, interval: Sequence[float] | None) -> str:
    return f"{value:+.4g}" + (f" [{interval[0]:+.4g}, {interval[1]:+.4g}]" if interval else "")


def _distance_section(each: Mapping[str, Any]) -> Section:
    rows = []
    for pair in each["distances"]:
        own, known = [pair["first"], pair["second"]], {"label", "value", "clips", "notes"}
        settings = [", ".join(f"{key}={each[key]}" for key in each if key not in known) for each in own]
        values = ["-" if one["value"] is None else f"{one['value']:.3f} ({one['clips']} clips)" for one in own]
        said = settings[0] if settings[0] == settings[1] else " | ".join(settings)
        rows.append([label(pair["video_set"]), own[0]["label"], *values, said])
    return Section(
        title=f"Distances between sets of videos: {each['first']}, {each['second']}",
        text=["Of whole sets to the true videos; no intervals: a distance is no mean over clips."],
        header=["videos", "distance", each["first"], each["second"], "settings"],
        rows=rows,
    )


def _checkpoint(checkpoint: Any) -> str:
    if not checkpoint:
        return "none"
    text = (
        ", ".join(f"{key}={value}" for key, value in checkpoint.items()) if isinstance(checkpoint, dict) else checkpoint
    )
    return text if len(text) <= 160 else f"{text[:157]}..."
