"""Two evaluations of the same clips: paired differences, with intervals over clips."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cami2v.evaluation.bootstrap import Bootstrap, Interval
from cami2v.evaluation.folder import EvaluationFolder, read_json
from cami2v.evaluation.measures.base import Figure
from cami2v.evaluation.summary import counted_as

NOT_ABOUT_CLIPS = frozenset({"checkpoint", "shards", "videos", "cameras", "truth", "cameras_without_video"})
"""Of evaluation.json: what is compared, and places. All else decides which clips are judged, and how."""
_MANIFEST = "manifest_sha256"
FIRST, SECOND, EQUAL, OPEN, TOO_FEW = "first", "second", "equal", "not told apart", "too few clips"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One reported evaluation, under the name it has in the comparison."""

    name: str
    folder: EvaluationFolder
    results: dict[str, Any]

    def clips(self, video_set: str) -> dict[str, dict[str, Any]]:
        """Return the records of a set by clip id."""
        return {clip["clip_id"]: clip for clip in self.results["clips"] if clip["video_set"] == video_set}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A figure of the second evaluation minus that of the first, clip by clip."""

    video_set: str
    figure: str
    over: str
    """Which clips: those that neither failed, or all."""
    pairs: int
    failed_first: int
    failed_second: int
    first_mean: float
    second_mean: float
    mean: float
    mean_interval: Interval | None
    median: float
    median_interval: Interval | None
    better: str
    """`first` or `second` where the mean's interval is on one side of zero."""


def open_evaluations(paths: Sequence[Path]) -> list[Evaluation]:
    """Read evaluations; a run folder stands for its only one. Raises ValueError where there is none, or one twice."""
    if len(paths) < 2:
        raise ValueError(f"runs: got {len(paths)} folder(s), two or more are compared: cami2v compare <run A> <run B>")
    roots = [_root(path) for path in paths]
    if len({root.resolve() for root in roots}) < len(roots):
        raise ValueError(f"runs: {', '.join(map(str, paths))} has the same evaluation twice; give different ones")
    names = _names([root.resolve() for root in roots])
    return [
        Evaluation(name=name, folder=EvaluationFolder(root), results=read_json(root / "results.json"))
        for name, root in zip(names, roots, strict=True)
    ]


def what_differs(first: Evaluation, second: Evaluation) -> list[str]:
    """Return what makes the clips or the judging of two evaluations different, a phrase each; empty: comparable."""
    ours, theirs = first.results["evaluation"], second.results["evaluation"]
    # Videos of a model and those of a folder have other keys; one manifest says that the clips are the same.
    known_to = set(ours) & set(theirs) if _MANIFEST in ours and _MANIFEST in theirs else set(ours) | set(theirs)
    keys = [key for key in dict.fromkeys([*ours, *theirs]) if key in known_to - NOT_ABOUT_CLIPS]
    found = _differing(ours, theirs, keys, "")
    measures = [name for name in first.results["measures"] if name in second.results["measures"]]
    for name in measures:
        ours, theirs = first.results["measures"][name], second.results["measures"][name]
        found += _differing(ours, theirs, list(dict.fromkeys([*ours, *theirs])), f"{name}.")
    known = [set(each.folder.clip_ids()) for each in (first, second)]
    if known[0] != known[1]:
        only = [len(known[0] - known[1]), len(known[1] - known[0])]
        found.append(f"clips ({only[0]} only in {first.name}, {only[1]} only in {second.name})")
    moved = [clip_id for clip_id in sorted(known[0] & known[1]) if not _same_cameras(first, second, clip_id)]
    if moved:
        found.append(f"requested cameras of {len(moved)} clips (first {moved[0]})")
    return found


def check_comparable(first: Evaluation, second: Evaluation) -> None:
    """Raise ValueError, naming what differs, where two evaluations are of other clips or settings."""
    if found := what_differs(first, second):
        raise ValueError(
            f"{first.name} and {second.name} were not evaluated alike: {'; '.join(found)}; evaluate both on the same "
            "manifest with the same settings, or set compare.allow_different=true for a table that says so"
        )


def differences(first: Evaluation, second: Evaluation, bootstrap: Bootstrap) -> list[Difference]:
    """Return the differences of every figure that both have, over the clips that both have."""
    found = []
    for video_set in first.results["summary"]:
        if video_set not in second.results["summary"]:
            continue
        ours, theirs = first.clips(video_set), second.clips(video_set)
        clip_ids = [clip_id for clip_id in ours if clip_id in theirs]
        for name, described in first.results["figures"].items():
            figure = Figure(**{key: described[key] for key in Figure.__dataclass_fields__})
            pairs = [(ours[clip_id], theirs[clip_id]) for clip_id in clip_ids]
            judged = [pair for pair in pairs if all(name in clip["values"] for clip in pair)]
            if judged:
                found += _of_figure(video_set, figure, judged, bootstrap)
    return found


def _of_figure(
    video_set: str, figure: Figure, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], bootstrap: Bootstrap
) -> list[Difference]:
    values = [[clip["values"][figure.name] for clip in column] for column in zip(*pairs, strict=True)]
    failed = [sum(value is None for value in column) for column in values]
    both = [pair for pair in zip(*values, strict=True) if None not in pair]
    readings = {"clips that neither failed": both}
    if any(failed):
        # A clip that failed once counts as the worst of both evaluations: the same bar for both.
        penalties = [[clip["penalties"] for clip in column] for column in zip(*pairs, strict=True)]
        counted = counted_as(figure, [*values[0], *values[1]], [*penalties[0], *penalties[1]])
        if None not in counted:
            readings["all clips, failures counted"] = list(
                zip(counted[: len(pairs)], counted[len(pairs) :], strict=True)
            )
    return [
        _difference(video_set, figure, over, np.array(rows, dtype=np.float64), failed, bootstrap)
        for over, rows in readings.items()
        if rows
    ]


def _difference(
    video_set: str, figure: Figure, over: str, rows: np.ndarray, failed: Sequence[int], bootstrap: Bootstrap
) -> Difference:
    moved = rows[:, 1] - rows[:, 0]
    interval = bootstrap.mean(moved)
    return Difference(
        video_set=video_set,
        figure=figure.name,
        over=over,
        pairs=len(rows),
        failed_first=failed[0],
        failed_second=failed[1],
        first_mean=float(rows[:, 0].mean()),
        second_mean=float(rows[:, 1].mean()),
        mean=float(moved.mean()),
        mean_interval=interval,
        median=float(statistics.median(moved.tolist())),
        median_interval=bootstrap.median(moved),
        better=_better(figure, moved, interval),
    )


def _better(figure: Figure, moved: np.ndarray, interval: Interval | None) -> str:
    if not moved.any():
        return EQUAL
    if interval is None:
        return TOO_FEW
    if interval[0] <= 0 <= interval[1]:
        return OPEN
    return SECOND if (interval[1] < 0) == (figure.better == "lower") else FIRST


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any], keys: Sequence[str], prefix: str) -> list[str]:
    return [
        f"{prefix}{key} ({_short(ours.get(key))} and {_short(theirs.get(key))})"
        for key in keys
        if ours.get(key) != theirs.get(key)
    ]


def _same_cameras(first: Evaluation, second: Evaluation, clip_id: str) -> bool:
    paths = [each.folder.cameras(clip_id) for each in (first, second)]
    if not all(path.exists() for path in paths):
        # Reports are compared where nobody kept the cameras; the manifest's hash then has to do.
        return True
    ours, theirs = (each.folder.read_cameras(clip_id) for each in (first, second))
    return (ours.height, ours.width) == (theirs.height, theirs.width) and all(
        np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in ("world_to_camera", "intrinsics_pixels")
    )


def _root(path: Path) -> Path:
    if (path / "results.json").is_file():
        return path
    found = sorted(each.parent for each in (path / "evaluation").glob("*/results.json"))
    if len(found) > 1:
        raise ValueError(f"{path}: has several evaluations ({', '.join(map(str, found))}); give one of them")
    if not found:
        raise ValueError(
            f"{path}: neither an evaluation folder (with results.json) nor a run with one below evaluation/; run "
            "`cami2v evaluate` with its report stage first"
        )
    return found[0]


def _names(roots: Sequence[Path]) -> list[str]:
    """Name folders by what their paths do not share."""
    parts = [list(root.parts) for root in roots]
    while len({own[0] for own in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [own[1:] for own in parts]
    while len({own[-1] for own in parts}) == 1 and min(map(len, parts)) > 1:
        parts = [own[:-1] for own in parts]
    return ["/".join(own) for own in parts]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
