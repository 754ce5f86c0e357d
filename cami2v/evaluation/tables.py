"""The tables of an evaluation's results, for Markdown and HTML alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cami2v.evaluation.folder import GENERATE, MEASURE
from cami2v.evaluation.measures.metric_poses import NAME as METRIC
from cami2v.evaluation.published import COLUMNS, REMARKS

_PER_FRAME = {"RotErr_mean_deg": "RotErr", "TransErr_mean": "TransErr", "CamMC_mean": "CamMC"}
_ABSOLUTE = {"TransErr_abs_sum": "TransErr_abs", "CamMC_abs_sum": "CamMC_abs"}
"""Figures of the published table that need a depth network."""
_PUBLISHED_DISTANCES = {"FVD VideoGPT": "videogpt", "FVD StyleGAN": "stylegan"}
"""Columns of the published table, and the word in a distance's label that says it is this one."""
_POSES = "poses"
LAYOUT = "Results, in the layout of the published table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading, sentences, and a table where `header` is not empty."""

    title: str
    text: Sequence[str] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def sections(results: Mapping[str, Any]) -> list[Section]:
    """Lay out the tables of `report`'s results; what the numbers rest on comes first."""
    summary = results["summary"]
    estimated = {name: row for name, row in summary.items() if set(COLUMNS) <= row["figures"].keys()}
    parts = [_layout(estimated, results["measures"])] if estimated else []
    if estimated:
        parts += [_per_frame(estimated), _failures(estimated)]
    parts += [_distances(summary)] if any(row["distances"] for row in summary.values()) else []
    shown = {*COLUMNS, *_PER_FRAME} if estimated else set()
    measures = dict.fromkeys(figure["measure"] for figure in results["figures"].values())
    for measure in measures:
        names = [name for name, each in results["figures"].items() if each["measure"] == measure and name not in shown]
        if compared := {name: row for name, row in summary.items() if set(names) & row["figures"].keys()}:
            parts.append(_figures(measure, results["figures"], compared, names))
    parts += [_compatibility(name, steps) for name, steps in results["compatibility"].items()]
    if failures := _failure_rows(results["clips"]):
        header = ["videos", "clip", "measure", "trial", "reason", "detail"]
        parts.append(Section(title="What could not be measured", header=header, rows=failures))
    return parts


def facts(results: Mapping[str, Any]) -> list[str]:
    """Return what the numbers rest on, a line each: what was evaluated, with what, and how intervals are made."""
    entries = {"evaluation": results["evaluation"], **results["measures"]}
    for stage, title in ((GENERATE, "generated on"), (MEASURE, "measured on")):
        known = results["machines"][stage]
        entries |= {title + (f" ({number})" if len(known) > 1 else ""): each for number, each in enumerate(known, 1)}
    entries |= {"versions": results["versions"], "report made on": results["hardware"]}
    lines = [] if results["machines"][GENERATE] else [f"generated on: {_unknown_machine(results['evaluation'])}"]
    lines += [
        f"{title}: " + ", ".join(f"{key}={_short(each[key])}" for key in each)
        for title, each in entries.items()
        if each
    ]
    if bootstrap := results["bootstrap"]:
        lines.append(
            f"in brackets: {bootstrap['level']:.0%} confidence interval, bootstrap over clips "
            f"({bootstrap['resamples']} resamples, seed {bootstrap['seed']}; BCa for means, percentile for medians; "
            "none for fewer than ten clips): what other clips could have given, not other seeds of the model"
        )
    return lines


def _unknown_machine(evaluation: Mapping[str, Any]) -> str:
    if "videos" in evaluation:
        return "not known, these videos were made elsewhere"
    return "not recorded" if evaluation.get("checkpoint") else "nothing was generated"


def number(value: float | None) -> str:
    """Write a figure; `-` where there is none."""
    return "-" if value is None else f"{value:.4g}" if abs(value) < 0.01 else f"{value:.4f}"


def with_interval(figure: Mapping[str, Any], kind: str) -> str:
    """Write a figure with its interval, where it has one."""
    value, interval = figure[kind], figure[f"{kind}_interval"]
    if value is None and kind == "mean" and figure["counted"]:
        # Only identical videos have a figure that is not finite.
        return "identical"
    return number(value) + (
        f" [{number(interval[0])}, {number(interval[1])}]" if interval and value is not None else ""
    )


def label(video_set: str) -> str:
    """Write a set's name for readers."""
    text = video_set.replace("_", " ")
    return f"{text} (estimator's own error)" if video_set == "ground_truth" else text


def _layout(summary: Mapping[str, Any], measures: Mapping[str, Any]) -> Section:
    metric = measures.get(METRIC)
    columns, rows = [*COLUMNS, *(_ABSOLUTE if metric else ())], []
    for video_set, row in summary.items():
        found = [_distance(row["distances"], word) for word in _PUBLISHED_DISTANCES.values()]
        for kind in ("mean", "median"):
            cells = [_known(row, name, kind) for name in columns]
            rows.append(
                [label(video_set), *_counts(row), kind, *cells, *(found if kind == "mean" else [""] * len(found))]
            )
        cells = [_known(row, name, "penalised_mean") for name in columns]
        rows.append([label(video_set), *_counts(row), "mean, failures counted", *cells, *[""] * len(found)])
    return Section(
        title=LAYOUT,
        text=[
            "Published convention: sum over frames; RotErr in radians; each path's translations divided by its own "
            "extent; a clip's value is the median of its trials. Lower is better. Mean and median are over the "
            "registered clips; where failures count, a failed clip counts as a motionless camera would, or as the "
            "worst registered clip if that is worse. Ground truth is what the estimator says of the true videos: below "
            "that no model can be told from the truth.",
            _in_metres(metric),
        ],
        header=[
            "videos",
            "clips",
            "registered",
            "failed trials",
            "over clips",
            *({**COLUMNS, **_ABSOLUTE}[name] for name in columns),
            *_PUBLISHED_DISTANCES,
        ],
        rows=rows,
    )


def _known(row: Mapping[str, Any], name: str, kind: str) -> str:
    return with_interval(row["figures"][name], kind) if name in row["figures"] else "-"


def _in_metres(measured_with: Mapping[str, Any] | None) -> str:
    """Say what TransErr_abs and CamMC_abs are, or why there are none."""
    if measured_with is None:
        return (
            "No TransErr_abs and CamMC_abs: no depth network brings the estimated paths to metres (depth=none); "
            "depth=depth_anything_v2_hypersim_vitl depth_weights=<file> does."
        )
    text = (
        "TransErr_abs, CamMC_abs: both paths in metres, divided by the true path's extent. The true path is the "
        "requested one where cameras are metric, else what the estimator says of the true video; then the true videos "
        "have no such error."
    )
    warning = measured_with.get("depth_warning")
    return f"{text} {str(warning).capitalize()}." if warning else text


def _per_frame(summary: Mapping[str, Any]) -> Section:
    header = ["videos", "clips", "registered", "failed trials"]
    header += [f"{text} {kind}" for text in _PER_FRAME.values() for kind in ("mean", "median")]
    rows = []
    for video_set, row in summary.items():
        figures = [with_interval(row["figures"][name], kind) for name in _PER_FRAME for kind in ("mean", "median")]
        rows.append([label(video_set), *_counts(row), *figures])
    text = "Mean over frames 1..T-1; RotErr in degrees; otherwise as above."
    return Section(title="Camera errors, per frame", text=[text], header=header, rows=rows)


def _failures(summary: Mapping[str, Any]) -> Section:
    header = ["videos", "clips", "registered", "failed trials", "failure rate of clips", "rescued trials"]
    header += [f"{text} trial spread" for text in COLUMNS.values()]
    rows = []
    for video_set, row in summary.items():
        facts_of_set = row["facts"].get(_POSES, {})
        spread, rescued = facts_of_set.get("trial_spread", {}), str(facts_of_set.get("rescued_trials", "-"))
        rate = with_interval(row["figures"][next(iter(COLUMNS))], "failure_rate")
        rows.append([label(video_set), *_counts(row), rate, rescued, *(number(spread.get(name)) for name in COLUMNS)])
    text = (
        "The rate's interval is Wilson's. Rescued trials count; without the check for reversed depth and the like they "
        "would be wrong or failed (results_trials.csv names them). Trial spread: standard deviation over a clip's "
        "trials, mean over clips, published convention."
    )
    return Section(title="Failures and trials", text=[text], header=header, rows=rows)


def _distances(summary: Mapping[str, Any]) -> Section:
    rows, notes = [], []
    for video_set, row in summary.items():
        for each in row["distances"].values():
            known = {"label", "value", "clips", "notes"}
            settings = ", ".join(f"{key}={_short(value)}" for key, value in each.items() if key not in known)
            value = each["value"]
            shown = "-" if value is None else f"{value:.3f}"
            rows.append([label(video_set), each["label"], shown, str(each["clips"]), settings])
            notes += [f"{each['label']}, {label(video_set)}: {note}" for note in each["notes"]]
    text = ["Of whole sets to the true videos. Equal only under equal settings and numbers of clips.", *notes]
    header = ["videos", "distance", "value", "clips", "settings"]
    return Section(title="Distances between sets of videos", text=text, header=header, rows=rows)


def _figures(measure: str, figures: Mapping[str, Any], summary: Mapping[str, Any], names: Sequence[str]) -> Section:
    units = [f" ({figures[name]['unit']})" if figures[name]["unit"] else "" for name in names]
    heads = [figures[name]["label"] + unit for name, unit in zip(names, units, strict=True)]
    rows = []
    for video_set, row in summary.items():
        own = [row["figures"].get(name) for name in names]
        counted = max(figure["counted"] for figure in own if figure is not None)
        cells = ["-" if figure is None else with_interval(figure, "mean") for figure in own]
        rows.append([label(video_set), f"{counted}/{row['clips']}", *cells])
    text = [
        f"{figures[name]['label']}: {figures[name]['meaning']}. {figures[name]['better']} is better." for name in names
    ]
    return Section(
        title=measure.replace("_", " ").capitalize(), text=text, header=["videos", "clips compared", *heads], rows=rows
    )


def _compatibility(video_set: str, steps: Sequence[Mapping[str, Any]]) -> Section:
    rows, before = [], steps[0]
    for step in steps:
        cells = []
        for name in COLUMNS:
            value, previous = step["figures"][name], before["figures"][name]
            known = step is not before and value is not None and previous is not None
            moved = f" ({value - previous:+.4f})" if known else ""
            cells.append(number(value) + moved)
        rows.append([step["name"], str(step["clips"]), str(step["entries"]), *cells, step["effect"]])
        before = step
    text = [
        "compatibility=cami2v: the same estimates through the published procedure, whose defects come one after the "
        "other; in brackets what each of them changed. The last row is what the published evaluator would have "
        "printed, for comparison with published numbers only.",
        *REMARKS,
    ]
    header = ["step", "clips", "trials", *COLUMNS.values(), "what it did"]
    return Section(title=f"Published procedure: {label(video_set)}", text=text, header=header, rows=rows)


def _distance(distances: Mapping[str, Any], word: str) -> str:
    found = [each for each in distances.values() if word in each["label"].lower().replace("-", "")]
    if not found or found[0]["value"] is None:
        return "-"
    # Of the true videos themselves: what sampling alone gives.
    halves = "half" in str(found[0].get("compared", ""))
    return f"{found[0]['value']:.3f}" + (" (between halves)" if halves else "")


def _failure_rows(clips: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [label(clip["video_set"]), clip["clip_id"], *(failure[key] for key in ("measure", "trial", "reason", "detail"))]
        for clip in clips
        for failure in clip["failures"]
    ]


def _counts(row: Mapping[str, Any]) -> list[str]:
    own, figure = row["facts"].get(_POSES), row["figures"][next(iter(COLUMNS))]
    trials = f"{own['failed_trials']}/{own['trials']}" if own else "-"
    return [str(row["clips"]), f"{figure['counted']}/{row['clips']}", trials]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
