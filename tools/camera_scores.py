"""Does a camera score rank videos by how far they are from their cameras? True videos under wrong requests, measured.

    python -m tools.camera_scores runs/evaluate/re10k-test

Takes an evaluation folder whose ground truth has been measured (poses). Every clip is asked to follow its own path and
perturbed ones, whose distance to the true path is known; reports Spearman's rank correlation between that distance,
the errors of the estimated path, and the epipolar error, which needs no estimate. Pooled over all clips, and the mean
over clips.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from cami2v.evaluation.camera_metrics import camera_errors
from cami2v.evaluation.folder import GROUND_TRUTH, EvaluationFolder, read_json
from cami2v.evaluation.measures.base import JudgedClip, UnusableVideo
from cami2v.evaluation.measures.epipolar import EpipolarErrors
from launch.compose import compose_config, instantiate_part

FIGURES = ("RotErr_mean_deg", "TransErr_mean", "CamMC_mean")


def perturbed_paths(path: np.ndarray, count: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the path itself and `count` others.

    In turn: rotations that drift, rotations that tremble, a walk in another direction, and all of them; from hardly
    visible (0.02 degrees per frame, 1 degree of direction) to gross (2 degrees per frame, 90 degrees).
    """
    yield path
    random = np.random.default_rng(seed)
    frames = np.arange(len(path))
    for number in range(count):
        kind, strength = number % 4, 10 ** random.uniform(-2, 0)
        axis = random.normal(size=3)
        axis /= np.linalg.norm(axis)
        drift = np.radians(2 * strength) * frames[:, None] * axis * (kind in (0, 3))
        tremble = np.radians(6 * strength) * random.normal(size=(len(path), 3)) * (kind in (1, 3))
        tremble[0] = 0
        bend = Rotation.from_rotvec(np.radians(90 * strength) * axis * (kind in (2, 3))).as_matrix()
        rotation, centers = path[:, :, :3], -np.einsum("tji,tj->ti", path[:, :, :3], path[:, :, 3])
        first = centers[0] + (centers - centers[0]) @ (rotation[0].T @ bend @ rotation[0]).T
        turned = Rotation.from_rotvec(drift + tremble).as_matrix() @ rotation
        yield np.concatenate([turned, -np.einsum("tij,tj->ti", turned, first)[:, :, None]], axis=2)


def figures(truth: np.ndarray, estimate: np.ndarray) -> list[float]:
    """Return the per-frame figures of two paths."""
    found = camera_errors(torch.from_numpy(truth), torch.from_numpy(estimate)).figures()
    return [float(found[name]) for name in FIGURES]


def clip_rows(folder: EvaluationFolder, clip_id: str, measure: EpipolarErrors, count: int, seed: int) -> np.ndarray:
    """Return a row per request: known distances, errors of the estimates (median; NaN without one), epipolar error."""
    video, cameras = folder.video(GROUND_TRUTH, clip_id), folder.read_cameras(clip_id)
    clip = JudgedClip(clip_id=clip_id, video_set=GROUND_TRUTH, video=video, true_video=video, cameras=cameras)
    frames = clip.frames()
    if isinstance(frames, UnusableVideo):
        raise ValueError(f"{video}: {frames.reason}, {frames.detail}")
    matches = measure.match_video(frames)
    trials = read_json(folder.measurement("poses", GROUND_TRUTH, clip_id))["trials"]
    estimates = [np.array(trial["world_to_camera"]) for trial in trials if trial["failure"] is None]
    rows = []
    for path in perturbed_paths(cameras.world_to_camera, count, seed):
        asked = replace(clip, cameras=replace(cameras, world_to_camera=path))
        estimated = [figures(path, estimate) for estimate in estimates]
        median = np.median(estimated, axis=0) if estimated else np.full(len(FIGURES), np.nan)
        epipolar = measure.values(measure.judge_matches(asked, matches))["EpiErr_px"]
        rows.append([*figures(cameras.world_to_camera, path), *median, epipolar])
    return np.array(rows, dtype=np.float64)


def correlations(clips: list[np.ndarray], first: int, second: int) -> tuple[float, float]:
    """Return Spearman's correlation of two columns: pooled, and as the mean over clips."""
    pooled = np.concatenate(clips)
    own = [spearmanr(rows[:, first], rows[:, second]).statistic for rows in clips]
    return float(spearmanr(pooled[:, first], pooled[:, second]).statistic), float(np.mean(own))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=48, help="perturbed paths per clip")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = EvaluationFolder(arguments.folder)
    config = compose_config("evaluate", ["data.shards=none"])
    measure: EpipolarErrors = instantiate_part(config.evaluation.measures.epipolar, "evaluation.measures.epipolar")
    every = {
        clip_id: clip_rows(folder, clip_id, measure, arguments.requests, arguments.seed + number)
        for number, clip_id in enumerate(folder.clip_ids())
    }
    kept = [rows for rows in every.values() if not np.isnan(rows).any()]
    print(f"{len(every)} clips, {arguments.requests + 1} requests each; {len(kept)} with an estimated path\n")
    print("| known distance | epipolar, all clips | epipolar, clips with an estimate | estimated path |")
    print("|---|---|---|---|")
    for column, name in enumerate(FIGURES):
        pairs = (
            correlations(list(every.values()), column, 6),
            correlations(kept, column, 6),
            correlations(kept, column, column + 3),
        )
        print(f"| {name} | " + " | ".join(f"{pooled:.3f} / {mean:.3f}" for pooled, mean in pairs) + " |")
    print("\n| error of the estimated path | epipolar |\n|---|---|")
    for column, name in enumerate(FIGURES):
        print(f"| {name} | {' / '.join(f'{value:.3f}' for value in correlations(kept, column + 3, 6))} |")
    true, worst = [rows[0, 6] for rows in every.values()], [rows[1:, 6].max() for rows in every.values()]
    print(f"\nepipolar error of the true request, by clip: {', '.join(f'{value:.2f}' for value in true)} pixels")
    print(f"largest of the perturbed ones: {', '.join(f'{value:.2f}' for value in worst)} pixels")


if __name__ == "__main__":
    main()
