"""generate -> measure -> report with a known estimator: restarts, failures, numbers of the tables."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cami2v.batch import Cameras, ClipBatch
from cami2v.camera_control.interventions import Trajectory
from cami2v.camera_control.liveness import CameraEffect
from cami2v.evaluation.camera_effect import measured, not_measured
from cami2v.evaluation.folder import EvaluationFolder, write_json
from cami2v.evaluation.generate import next_clip, write_generated, write_ground_truth
from cami2v.evaluation.measure import measure_clips, open_jobs
from cami2v.evaluation.measures.base import Measure
from cami2v.evaluation.measures.frames import FrameDistances
from cami2v.evaluation.measures.poses import CameraPoses
from cami2v.evaluation.pose_estimation.base import (
    EstimatedPath,
    FailedEstimate,
    FailureReason,
    Frames,
    IntrinsicsPixels,
    PoseEstimate,
    PoseEstimator,
    SolutionQuality,
)
from cami2v.evaluation.report import report
from cami2v.video import write_mp4
from tests.cami2v.evaluation.clips import random_batch

QUALITY = SolutionQuality(
    points=9, reprojection_error_pixels=0.5, epipolar_outlier_share=0.0, behind_camera_share=0.0, extent_to_depth=1.0
)


class SidewaysEstimator(PoseEstimator):
    """Says of every video that the camera walked along x and rolled; black videos fail, or kill the process."""

    def __init__(self, *, degrees: float = 1.0, black: str = "fails") -> None:
        self.degrees = degrees
        self.black = black

    def estimate(self, frames: Frames, intrinsics_pixels: IntrinsicsPixels, seed: int) -> PoseEstimate:
        if frames.max() < 40:
            if self.black == "dies":
                os._exit(3)
            return FailedEstimate(reason=FailureReason.NO_MODEL, detail="0 verified matches")
        path = np.tile(np.eye(4)[:3], (len(frames), 1, 1))
        for number, pose in enumerate(path):
            angle = np.radians(self.degrees * (1 + seed) * number)
            pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
            pose[0, 3] = -number
        quality = replace(QUALITY, rescued_by="reversed depth") if seed == 1 else QUALITY
        return EstimatedPath(world_to_camera=path, quality=quality)

    def describe(self) -> dict[str, str | int | float]:
        return {"estimator": "sideways", **vars(self)}


def sideways(batch: ClipBatch) -> ClipBatch:
    pose = torch.eye(4, dtype=torch.float64)[:3].repeat(4, 1, 1)
    pose[:, 0, 3] = -torch.arange(4)
    return replace(batch, cameras=replace(batch.cameras, world_to_camera=pose[None]))


def clips(count: int = 3) -> list[ClipBatch]:
    return [sideways(random_batch(f"clip-{number}", seed=number)) for number in range(count)]


def measures(estimator: PoseEstimator | None = None, trials: int = 2) -> list[Measure]:
    return [CameraPoses(estimator=estimator or SidewaysEstimator(), trials=trials), FrameDistances()]


def measure_here(folder: EvaluationFolder, measures: Sequence[Measure]) -> int:
    """Measure in this process, as the pool's workers would; return the number of clips that were judged."""
    judged = 0
    for measure in measures:
        for job in open_jobs(folder, measure):
            clip = job.clip
            row = {"clip_id": clip.clip_id, "video_set": clip.video_set, "measured_with": job.measured_with}
            stored = folder.measurement(measure.name, clip.video_set, clip.clip_id)
            write_json(stored, row | measure.judge(clip))
            judged += 1
    return judged


def black(batch: ClipBatch) -> ClipBatch:
    return replace(batch, video=torch.full_like(batch.video, -1.0))


@pytest.fixture
def folder(tmp_path: Path) -> EvaluationFolder:
    return EvaluationFolder(tmp_path / "evaluation")


def test_generation_restarts_and_intervenes(folder: EvaluationFolder) -> None:
    asked: list[tuple[str, Tensor]] = []

    def animate(batch: ClipBatch) -> Tensor:
        asked.append((batch.clip_ids[0], batch.cameras.world_to_camera[0, -1, :, 3]))
        return batch.video

    batches = [random_batch(f"clip-{number}", seed=number) for number in range(3)]
    ids = [batch.clip_ids[0] for batch in batches]

    def others(clip_id: str) -> Cameras:
        return batches[ids.index(next_clip(ids, clip_id))].cameras

    trajectories: tuple[Trajectory, ...] = ("right", "stationary", "shuffled")
    write_ground_truth(folder, batches, crf=10)
    for _ in range(2):
        write_generated(folder, batches, animate, trajectories=trajectories, crf=10, other_cameras=others)
    assert [clip for clip, _ in asked] == [batch.clip_ids[0] for batch in batches for _ in range(3)]
    ends = [batch.cameras.world_to_camera[0, -1, :, 3] for batch in batches]
    for number in range(3):
        right, stationary, shuffled = (end for _, end in asked[3 * number : 3 * number + 3])
        torch.testing.assert_close(right, ends[number])
        torch.testing.assert_close(stationary, torch.zeros_like(stationary))
        torch.testing.assert_close(shuffled, ends[(number + 1) % 3])
    folder.video("generated_stationary", "clip-1").unlink()
    write_generated(folder, batches, animate, trajectories=trajectories, crf=10, other_cameras=others)
    assert len(asked) == 10
    assert folder.video_sets()[0] == "ground_truth"


def test_shuffling_needs_a_second_clip() -> None:
    assert next_clip(["a", "b", "c"], "c") == "a"
    with pytest.raises(ValueError, match="no other trajectory"):
        next_clip(["a"], "a")


def test_every_clip_is_accounted_for(folder: EvaluationFolder) -> None:
    truth = clips(6)
    write_ground_truth(folder, truth, crf=10)
    # Generated: two fine clips, one black, one missing, one cut short, one corrupt.
    write_generated(folder, truth[:2], lambda batch: batch.video, trajectories=("right",), crf=10)
    write_generated(folder, [truth[2]], lambda batch: black(batch).video, trajectories=("right",), crf=10)
    frames = np.zeros((3, 16, 24, 3), dtype=np.uint8)
    write_mp4(folder.video("generated", "clip-4"), frames, 8)
    folder.video("generated", "clip-5").write_bytes(b"not a video")
    measure_here(folder, measures())
    text = report(folder, measures())

    results = json.loads((folder.root / "results.json").read_text())
    generated = results["summary"]["generated"]
    assert (generated["clips"], generated["figures"]["CamMC_sum"]["failed"]) == (6, 4)
    assert (generated["facts"]["poses"]["trials"], generated["facts"]["poses"]["failed_trials"]) == (12, 8)
    assert results["summary"]["ground_truth"]["figures"]["CamMC_sum"]["failed"] == 0
    # The second trial of every clip was rescued.
    assert generated["facts"]["poses"]["rescued_trials"] == 2
    assert "| generated | 6 | 2/6 | 8/12 | 0.6667 | 2 |" in text
    trials = list(csv.DictReader((folder.root / "results_trials.csv").open()))
    assert [row["detail"] for row in trials if row["clip_id"] == "clip-0"] == ["", "rescued: reversed depth"] * 2
    # A black video has no path, but it can be compared.
    assert (generated["figures"]["MSE"]["counted"], generated["figures"]["MSE"]["failed"]) == (3, 3)
    reasons = {
        clip["clip_id"]: clip["rows"]["poses"]["trials"][0]["failure"]
        for clip in results["clips"]
        if clip["video_set"] == "generated"
    }
    assert reasons == {
        "clip-0": None,
        "clip-1": None,
        "clip-2": "no model",
        "clip-3": "missing video",
        "clip-4": "wrong frame count",
        "clip-5": "unreadable video",
    }
    assert "| generated | 6 | 2/6 | 8/12 |" in text
    assert "| ground truth (estimator's own error) | 6 | 6/6 | 0/12 |" in text
    rows = list(csv.DictReader((folder.root / "results.csv").open()))
    assert len(rows) == 2 * 6
    assert [row["failures"] for row in rows if row["clip_id"] == "clip-2"] == ["", "no model"]
    assert float(rows[0]["RotErr_mean_deg"]) == results["clips"][0]["values"]["RotErr_mean_deg"]


def test_numbers_of_the_table(folder: EvaluationFolder) -> None:
    truth = clips(2)
    write_ground_truth(folder, truth, crf=10)
    write_generated(folder, truth[:1], lambda batch: batch.video, trajectories=("right",), crf=10)
    write_generated(folder, truth[1:], lambda batch: black(batch).video, trajectories=("right",), crf=10)
    measure_here(folder, measures())
    report(folder, measures())
    summary = json.loads((folder.root / "results.json").read_text())["summary"]["generated"]
    figures = summary["figures"]
    # Trials are off by 1 and 2 degrees per frame: their median is 1.5 degrees times 1, 2, 3.
    rotation = figures["RotErr_mean_deg"]
    assert rotation["mean"] == rotation["median"] == pytest.approx(3.0)
    assert summary["facts"]["poses"]["trial_spread"]["RotErr_mean_deg"] == pytest.approx(2 * np.std([1, 2], ddof=1))
    # The failed clip has no rotation to miss, so it counts as the worst clip; its path counts as not walked at all.
    assert rotation["penalised_mean"] == pytest.approx(3.0)
    translation = figures["TransErr_sum"]
    assert translation["mean"] < 0.2
    assert translation["penalised_mean"] == pytest.approx((translation["mean"] + 2.0) / 2)


def test_interventions_are_compared_by_their_frames(folder: EvaluationFolder) -> None:
    truth = clips(2)
    write_ground_truth(folder, truth, crf=10)

    def animate(batch: ClipBatch) -> Tensor:
        moves = bool((batch.cameras.world_to_camera[0, -1] != batch.cameras.world_to_camera[0, 0]).any())
        return batch.video if moves else black(batch).video

    write_generated(folder, truth, animate, trajectories=("right", "stationary", "shuffled"), crf=10)
    measure_here(folder, measures())
    text = report(folder, measures())
    summary = json.loads((folder.root / "results.json").read_text())["summary"]
    assert set(summary["generated_stationary"]["figures"]) == {"MSE", "PSNR_dB", "SSIM"}
    error = {name: row["figures"]["MSE"]["mean"] for name, row in summary.items() if "MSE" in row["figures"]}
    assert error["generated_stationary"] > 10 * error["generated"]
    assert "| generated stationary | 2/2 |" in text


def test_the_report_says_what_the_camera_does(folder: EvaluationFolder) -> None:
    write_ground_truth(folder, clips(1), crf=10)
    measure_here(folder, measures())
    assert "**Camera effect:** not measured, no checkpoint was evaluated." in report(folder, measures())
    folder.record_camera_effect(not_measured("camera=none"))
    assert "**Camera effect:** not measured (camera=none)." in report(folder, measures())
    alive = CameraEffect(changes={"right": 0.0, "stationary": 0.5, "shuffled": 0.25}, precision=1e-7)
    folder.record_camera_effect(measured(alive, clip_id="a", shuffled_with="b"))
    text = report(folder, measures())
    assert "**Camera effect:** the camera is alive: relative change of the prediction 0.5 stationary, 0.25 " in text
    assert "; clip a, shuffled: b." in text
    assert json.loads((folder.root / "results.json").read_text())["camera_effect"]["changes"]["stationary"] == 0.5
    assert "ignores" not in text


@pytest.mark.parametrize(("change", "said"), [(0.0, "THE CAMERA CHANGES NOTHING"), (math.nan, "IS NOT FINITE")])
def test_a_camera_without_effect_cannot_be_overlooked(folder: EvaluationFolder, change: float, said: str) -> None:
    write_ground_truth(folder, clips(1), crf=10)
    measure_here(folder, measures())
    dead = CameraEffect(changes={"right": 0.0, "stationary": change, "shuffled": change}, precision=1e-7)
    folder.record_camera_effect(measured(dead, clip_id="a", shuffled_with=None))
    text = report(folder, measures())
    assert text.index("# Evaluation") < text.index(said) < text.index("- poses: ")
    assert "> **Every number below is that of a model that ignores its trajectories.**" in text
    assert "shuffled: its own poses in another order" in text


def test_measuring_restarts_where_it_stopped(folder: EvaluationFolder) -> None:
    write_ground_truth(folder, clips(), crf=10)
    with pytest.raises(ValueError, match="3 of 3 clips of ground_truth are not measured \\(poses"):
        report(folder, measures())
    assert measure_here(folder, measures()) == 3
    first = report(folder, measures())
    assert measure_here(folder, measures()) == 0
    assert report(folder, measures()) == first
    write_mp4(folder.video("ground_truth", "clip-1"), np.zeros((4, 16, 24, 3), dtype=np.uint8), 8)
    assert measure_here(folder, measures()) == 1
    assert measure_here(folder, measures(SidewaysEstimator(degrees=2.0))) == 3
    assert measure_here(folder, measures(SidewaysEstimator(degrees=2.0), 3)) == 3


def test_a_dying_estimator_costs_one_clip(folder: EvaluationFolder) -> None:
    truth = clips(2)
    write_ground_truth(folder, [truth[0], black(truth[1])], crf=10)
    poses = CameraPoses(estimator=SidewaysEstimator(black="dies"), trials=1)
    assert len(list(measure_clips(folder, poses, open_jobs(folder, poses), processes=1))) == 2
    report(folder, [poses])
    results = json.loads((folder.root / "results.json").read_text())
    measured = {clip["clip_id"]: clip["rows"]["poses"]["trials"] for clip in results["clips"]}
    assert measured["clip-0"][0]["failure"] is None
    assert measured["clip-1"][0]["failure"] == "crashed"


def test_a_folder_holds_one_evaluation(folder: EvaluationFolder) -> None:
    folder.claim({"seed": 1, "resolution": (256, 455)})
    folder.claim({"seed": 1, "resolution": [256, 455]})
    with pytest.raises(
        ValueError, match="holds an evaluation with seed=1, this one has 2; choose another output folder"
    ):
        folder.claim({"seed": 2, "resolution": [256, 455]})


def test_an_empty_folder_says_what_to_do(folder: EvaluationFolder) -> None:
    with pytest.raises(ValueError, match="run the generate stage first"):
        open_jobs(folder, measures()[0])


@pytest.mark.parametrize("clip_id", ["", "../elsewhere", ".hidden", "a/b"])
def test_clip_ids_that_are_no_file_names_are_refused(folder: EvaluationFolder, clip_id: str) -> None:
    with pytest.raises(ValueError, match="cannot name a file"):
        folder.video("generated", clip_id)


def test_cameras_survive_the_disk(folder: EvaluationFolder) -> None:
    batch = random_batch("clip", seed=0)
    write_ground_truth(folder, [batch], crf=10)
    restored = folder.read_cameras("clip").batch()
    torch.testing.assert_close(restored.world_to_camera, batch.cameras.world_to_camera, rtol=0, atol=0)
    torch.testing.assert_close(restored.intrinsics_pixels, batch.cameras.intrinsics_pixels, rtol=0, atol=0)
    assert (restored.height, restored.width) == (16, 24)
