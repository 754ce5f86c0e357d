"""Runners of evaluation cases on cases that are not the published ones: other sizes, names, keys and gaps."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from cami2v.evaluation.fvd_preprocessing import preprocess
from cami2v.evaluation.i3d import I3D
from tests.tools.second_folder import write
from tools.parity import evaluation, fvd
from tools.parity.cases import Case, generator, uniform
from tools.parity.checks import Checks

SPLIT = "acceptance"
METRICS = ("RotErr", "CamMC")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "sched__any", {"split_name": SPLIT})
    return tmp_path


def failures(checks: Checks) -> list[str]:
    return [measurement.name for measurement in checks.measurements if not measurement.agrees]


@pytest.mark.parametrize("read_first", [None, 1], ids=["gaps read last", "gaps read first"])
def test_merged_trials(folder: Path, read_first: int | None) -> None:
    case = write_merged(folder, read_first)
    assert failures(evaluation.merge_and_summary(case)) == []
    case.parameters["correct_mean"][1] += 1e-4
    assert failures(evaluation.merge_and_summary(case)) == ["summary (elementwise)"]


def write_merged(folder: Path, read_first: int | None) -> Case:
    """Merge two trials of 70 names, one of which lacks three, entry by entry as REFERENCE_GEOMETRY.md describes."""
    values = np.random.default_rng(0).random((2, 70, 2)).round(6)
    values[0, 5, 1] = 3000
    values[1, 33, 0] = 4000
    gaps = {2, 33, 60} if read_first is None else {2, 40, 60}
    trials = [[(f"clip{n:02d}.mp4", values[t, n]) for n in range(70) if t == 0 or n not in gaps] for t in range(2)]
    if read_first is not None:
        trials = [trials[read_first], trials[1 - read_first]]
    pooled = np.stack([row for trial in trials for _, row in trial])
    merged: dict[str, list[np.ndarray]] = {name: [] for trial in trials for name, _ in trial}
    for name, row in [entry for trial in trials for entry in trial]:
        if not (np.abs(row - pooled.mean(0)) > 10 * pooled.std(0)).any():
            merged[name].append(row)
    means = np.stack([np.mean(rows, axis=0) for rows in merged.values() if rows])
    text = io.StringIO()
    csv.writer(text).writerows([["Method", *METRICS], ["x", *means[1:].mean(0).tolist()]])
    parameters: dict[str, Any] = {
        "what": "merge.py over 2 trial CSVs (70 names, 3 missing in trial 1) then summary.py",
        "merged_names": [name for name, rows in merged.items() if rows],
        "summary_csv": text.getvalue(),
        "summary_stdout": str(dict(zip(METRICS, means[1:].mean(0).round(4).tolist(), strict=True))),
        "correct_mean": means.mean(0).tolist(),
        "mean_without_first_row": means[1:].mean(0).tolist(),
    }
    arrays = {"values": torch.from_numpy(values), "merged": torch.from_numpy(means)}
    write(folder, "merge_summary", parameters, arrays)
    return Case(name="merge_summary", folder=folder)


def test_windows_of_a_mask(folder: Path) -> None:
    mask = uniform(f"threshconv/{SPLIT}/m", (2, 1, 15, 17)).numpy() < 0.8
    padded = np.pad(mask, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="reflect")
    counts = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(2, 3)).sum(axis=(4, 5))
    what = f"box; input random((2,1,15,17))<0.8 key crc32('threshconv/{SPLIT}/m')"
    parameters = {"what": what, "constrain_to_multiple_of": {"384": 378}}
    write(folder, "traj__thresholded_conv", parameters, {"k7_t08": torch.from_numpy(counts >= 49 * 0.8).float()})
    case = Case(name="traj__thresholded_conv", folder=folder)
    checks = evaluation.thresholded_convolution(case)
    assert failures(checks) == []
    assert len(checks.measurements) == 2
    case.arrays["k7_t08"][0, 0, 7, 7] = 1 - case.arrays["k7_t08"][0, 0, 7, 7]
    assert len(failures(evaluation.thresholded_convolution(case))) == 1


def test_distances(folder: Path) -> None:
    rows = [distance_row(40, 30, 6), distance_row(9, 12, 20)]
    write(folder, "fvd__frechet", {"rows": rows, "middle_indices": {"4of9": [3, 4, 5, 6]}})
    case = Case(name="fvd__frechet", folder=folder)
    assert failures(fvd.frechet(case)) == []
    case.parameters["rows"][0]["scipy"] *= 1.01
    assert failures(fvd.frechet(case)) == ["40 and 30 features of 6 (scipy)"]


def distance_row(first: int, second: int, width: int) -> dict[str, Any]:
    key = f"frechet/{SPLIT}/{first}x{width}"
    real = generator(f"{key}/a").standard_normal((first, width), dtype=np.float32).astype(np.float64)
    generated = generator(f"{key}/b").standard_normal((second, width), dtype=np.float32).astype(np.float64)
    generated = (0.8 * generated + 0.3) * np.linspace(0.5, 1.5, width)
    covariances = np.cov(real.T), np.cov(generated.T)
    overlap = np.real(scipy.linalg.sqrtm(covariances[0] @ covariances[1])).trace()
    shift = ((real.mean(0) - generated.mean(0)) ** 2).sum()
    distance = shift + covariances[0].trace() + covariances[1].trace() - 2 * overlap
    return {"N": first, "M": second, "d": width, "scipy": float(distance)}


@pytest.mark.slow
def test_i3d_of_one_other_video(folder: Path) -> None:
    network = I3D()
    parameters = write_i3d(folder, network)
    case = Case(name="fvd__i3d_videogpt", folder=folder)
    assert failures(fvd.i3d(case)) == []
    case.arrays["v0_fvdcal_logits"][0, 7] += 1
    parameters["min_frames"]["10"] = "RuntimeError"
    case.parameters["min_frames"] = parameters["min_frames"]
    assert failures(fvd.i3d(case)) == ["v0_fvdcal_logits (maximum)", "10 frames are refused: False, not True"]


@torch.no_grad()
def write_i3d(folder: Path, network: I3D) -> dict[str, Any]:
    """Write a case about one video of 10 frames, its numbers from a network filled here."""
    for name, parameter in network.named_parameters():
        numbers = torch.from_numpy(generator(name).standard_normal(tuple(parameter.shape), dtype=np.float32))
        if parameter.ndim > 1:
            parameter.copy_(numbers / parameter[0].numel() ** 0.5)
        else:
            parameter.copy_(0.1 * numbers + float(name.endswith(".weight")))
    video = generator(f"fvd/{SPLIT}/video0").integers(0, 256, (1, 10, 3, 50, 40), dtype=np.uint8)
    squashed = preprocess(torch.from_numpy(video).transpose(1, 2).contiguous(), "videogpt_squash")
    stages, bias = dict(network.endpoints(squashed)), network.get_parameter("logits.conv3d.bias")
    parameters: dict[str, Any] = {
        "n_state": 344,
        "checks": {"logits.conv3d.bias": {"shape": [400], "sum": bias.double().sum().item()}},
        "videos": [
            {
                "T": 10,
                "H": 50,
                "W": 40,
                "fvdcal_pre_shape": [1, 3, 10, 224, 224],
                "fvdcal_pre_mean": squashed.mean().item(),
                "endpoints": {name: [list(v.shape), v.mean().item(), v.std().item()] for name, v in stages.items()},
            }
        ],
        "min_frames": {"8": "RuntimeError", "10": [1, 400], "11": "not run"},
    }
    arrays = {
        "v0_fvdcal_logits": network(squashed),
        "v0_fvdcal_pre_sample": squashed[0, :, :2, ::32, ::32],
        "v0_extract_features": network.features(squashed).flatten(1)[:, ::8],
    }
    write(folder, "fvd__i3d_videogpt", parameters, arrays)
    return parameters
