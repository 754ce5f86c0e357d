"""What the Frechet video distance takes: CPU seconds per video, and memory by the number of videos."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cami2v.evaluation.folder import RequestedCameras, write_json
from cami2v.evaluation.i3d import I3D
from cami2v.evaluation.measures.base import JudgedClip
from cami2v.evaluation.measures.video_features import VideoFeatures, packed
from cami2v.evaluation.report import StoredRows
from cami2v.video import write_mp4
from tools.benchmark_report import Report, Table

FRAMES, HEIGHT, WIDTH = 9, 256, 256
FEATURES = 400
_IN_ANOTHER_PROCESS = "import sys; from tools import benchmark_fvd as b; getattr(b, sys.argv[1])(*sys.argv[2:])"


def measure_fvd(folder: Path, videos: Sequence[int], rows: Sequence[int]) -> Report:
    """Judge these many videos, and compare sets of these many rows, each in a process that does nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, video = folder / "random_i3d.pt", folder / "noise.mp4"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(I3D().state_dict(), weights)
    write_mp4(video, np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8), 10)
    judged = {count: _run("judge_videos", weights, video, folder / "rows", count) for count in sorted(videos)}
    compared = {count: _run("compare_sets", weights, folder / f"sets-{count}", count) for count in sorted(rows)}
    columns = ("MiB after the first", "peak MiB", "growth", "CPU s each")
    tables = [
        Table(
            title=f"Features of videos ({FRAMES} frames of {WIDTH}x{HEIGHT}, I3D with random weights, one thread)",
            columns=("videos", *columns),
            rows=[[str(count), *_cells(each, f"{each['cpu_seconds'] / count:.1f}")] for count, each in judged.items()],
        ),
        Table(
            title=f"Distance of two sets of rows ({FEATURES} features)",
            columns=("rows each", "MiB before", "peak MiB", "growth", "CPU s"),
            rows=[[str(count), *_cells(each, f"{each['cpu_seconds']:.1f}")] for count, each in compared.items()],
            notes=["Rows are read from disk one by one. Memory before is imported libraries."],
        ),
    ]
    return Report(name="fvd", tables=tables, numbers={"judged": judged, "compared": compared})


def judge_videos(weights: str, video: str, rows: str, count: str) -> None:
    """Judge a video `count` times under other names, storing every row; print what it took as JSON."""
    measure = VideoFeatures(
        flavour="fvd_videogpt", weights=weights, sha256=None, precision="float32", extrapolate=False
    )
    folder = Path(rows)
    folder.mkdir(exist_ok=True)
    first: dict[str, float] = {}
    for number in range(int(count)):
        row = measure.judge(_clip(f"clip-{number}", Path(video)))
        (folder / f"clip-{number}.json").write_text(json.dumps(row), encoding="utf-8")
        first = first or _spent()
    print(json.dumps(_between(first, _spent()) | {"cpu_seconds": _spent()["cpu_seconds"]}))


def compare_sets(weights: str, rows: str, count: str) -> None:
    """Write two sets of rows with random features and compare them, as a report does; print what that took as JSON."""
    measure = VideoFeatures(
        flavour="fvd_videogpt", weights=weights, sha256=None, precision="float32", extrapolate=False
    )
    draws = np.random.default_rng(0)
    row = {"failure": None, "detail": "", "frames": FRAMES, "height": HEIGHT, "width": WIDTH}
    sets = {}
    for name in ("ground_truth", "generated"):
        paths = [Path(rows, name, f"clip-{number}.json") for number in range(int(count))]
        for path in paths:
            write_json(path, row | {"features": packed(draws.standard_normal(FEATURES).astype(np.float32))})
        sets[name] = StoredRows(paths)
    before = _spent()
    measure.distances(sets)
    print(json.dumps(_between(before, _spent())))


def _clip(clip_id: str, video: Path) -> JudgedClip:
    cameras = RequestedCameras(
        world_to_camera=np.tile(np.eye(4)[:3], (FRAMES, 1, 1)), intrinsics_pixels=np.ones((FRAMES, 4)),
        translation_scale=np.ones(FRAMES), height=HEIGHT, width=WIDTH,
    )  # fmt: skip
    return JudgedClip(clip_id=clip_id, video_set="generated", video=video, true_video=video, cameras=cameras)


def _run(function: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, function, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ValueError(f"{function} failed: {run.stderr.strip().splitlines()[-1]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def _spent() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: that of a new process begins at its parent's.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return {"peak_mib": peak_kib / 1024, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def _between(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {
        "peak_mib_before": before["peak_mib"],
        "peak_mib": after["peak_mib"],
        "cpu_seconds": after["cpu_seconds"] - before["cpu_seconds"],
    }


def _cells(each: dict[str, float], seconds: str) -> list[str]:
    before, peak = each["peak_mib_before"], each["peak_mib"]
    return [f"{before:.0f}", f"{peak:.0f}", f"{peak - before:.1f}", seconds]
