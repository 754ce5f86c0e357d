"""Cases of the published evaluation scripts: merged trials, their summary, and the scene mask's window."""

from __future__ import annotations

import ast
import csv
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cami2v.encoders.depth_anything import nearest_multiple
from cami2v.evaluation.trials import MergedTrials, merge_trials, summary
from cami2v.inference.scene_mask import box_at_least
from tools.parity.cases import Case, uniform
from tools.parity.checks import Checks

FIGURES = 1e-9
Trials = list[dict[str, np.ndarray]]


def thresholded_convolution(case: Case) -> Checks:
    """Compare the mask of every stored window and share, and the sizes the depth network sees."""
    checks = Checks()
    sizes, bound, key = case.stated(r"random\(\(([\d, ]+)\)\)<([\d.]+) key crc32\('([^']+)'\)")
    mask = uniform(key, tuple(int(size) for size in sizes.split(","))) < float(bound)
    for name in case.arrays:
        stored = re.fullmatch(r"k(\d+)_t(\d)(\d*)", name)
        if not stored:
            raise ValueError(f"{case.name}: array {name} is not of the form k<window>_t<share>")
        ours = box_at_least(mask, window=int(stored[1]), share=float(f"{stored[2]}.{stored[3]}"))
        checks.equal(name, ours, case[name].bool())
    for size, expected in case.parameters.get("constrain_to_multiple_of", {}).items():
        checks.equal(f"network size of {size}", nearest_multiple(int(size)), expected)
    return checks


def merge_and_summary(case: Case) -> Checks:
    """Compare merged rows and their summary, the published one and ours, which loses no row."""
    checks = Checks()
    published_names = case.parameters["merged_names"]
    merged = merge_trials(stored_trials(case), compatibility="published")
    checks.equal("names", list(merged.names), published_names)
    checks.close("merged", torch.from_numpy(merged.mean), case["merged"], maximum=FIGURES)

    lossy = summary(merged.mean, compatibility="published")
    _close(checks, "summary without its first row", lossy, case.parameters["mean_without_first_row"])
    figures = _summary_figures(case.parameters["summary_csv"], len(lossy))
    _close(checks, "summary.csv", lossy, list(figures.values()))
    printed = ast.literal_eval(case.parameters["summary_stdout"])
    checks.equal("printed summary", dict(zip(figures, lossy.round(4).tolist(), strict=True)), printed)
    _close(checks, "summary", summary(merged.mean), case.parameters["correct_mean"])
    _check_nothing_is_lost(checks, stored_trials(case))
    return checks


def stored_trials(case: Case) -> Trials:
    """Rebuild the trials in the order in which they were read.

    Which names one of them lacks is not stored: those whose merged row is the mean of the other trials although their
    entry is no outlier. Merged names out of order tell that the trial with gaps was read first.
    """
    values, names = case["values"].numpy(), case.parameters["merged_names"]
    numbered = _numbered(names, values.shape[1])
    complete: Trials = [dict(zip(numbered, rows, strict=True)) for rows in values]
    gaps = re.search(r"missing in trial (\d+)", case.parameters["what"])
    if not gaps:
        return complete
    trial = int(gaps[1])
    missing = _missing(merge_trials(complete, compatibility="published"), complete, trial, names, case["merged"])
    complete[trial] = {name: row for name, row in complete[trial].items() if name not in missing}
    return [complete.pop(trial), *complete] if names != sorted(names) else complete


def _missing(
    pooled: MergedTrials, trials: Sequence[Mapping[str, np.ndarray]], trial: int, names: list[str], merged: Tensor
) -> set[str]:
    missing = set()
    for name, row in zip(names, merged.numpy(), strict=True):
        kept = [index for index in range(len(trials)) if (name, index) not in pooled.dropped]
        others = [trials[index][name] for index in kept if index != trial]
        with_it = np.mean([trials[index][name] for index in kept], axis=0)
        if others and np.abs(with_it - row).max() > FIGURES >= np.abs(np.mean(others, axis=0) - row).max():
            missing.add(name)
    return missing


def _numbered(names: Sequence[str], count: int) -> list[str]:
    """Return the name of every row of the stored values."""
    pattern = re.fullmatch(r"(\D*)(\d+)(.*)", names[0])
    if not pattern:
        raise ValueError(f"merged name {names[0]!r} has no number, so its row is unknown")
    return [f"{pattern[1]}{number:0{len(pattern[2])}d}{pattern[3]}" for number in range(count)]


def _summary_figures(text: str, metrics: int) -> dict[str, float]:
    header, row = csv.reader(io.StringIO(text))
    return {name: float(value) for name, value in zip(header[-metrics:], row[-metrics:], strict=True)}


def _check_nothing_is_lost(checks: Checks, trials: Trials) -> None:
    ours = merge_trials(trials)
    checks.equal("ours: entries used", sum(ours.trials), sum(len(rows) for rows in trials))
    checks.equal("ours: names", set(ours.names), {name for rows in trials for name in rows})


def _close(checks: Checks, name: str, ours: np.ndarray, published: list[Any]) -> None:
    theirs = torch.tensor(published, dtype=torch.float64)
    checks.elementwise(name, torch.from_numpy(ours), theirs, relative=FIGURES)
