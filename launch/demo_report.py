"""The demo's report.html: what was trained, whether the camera matters, what was measured and what was not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from cami2v.evaluation.camera_effect import sentence
from cami2v.evaluation.folder import GENERATED, GROUND_TRUTH, SHUFFLED, STATIONARY, EvaluationFolder
from cami2v.geometry.cameras import relative_poses
from cami2v.html_report import HtmlReport, animation
from cami2v.inference.clip_video import side_by_side
from cami2v.inference.trajectory_plot import trajectory_figure
from cami2v.training.run_folder import RunFolder
from cami2v.video import read_frames
from launch.compose import read_config

SHOWN_CLIPS = 6
SHOWN_HEIGHT = 144
PATH_INCHES = 1.9
SHOWN_FRAMES_PER_SECOND = 4.0
PREVIEW_CLIPS = 3
PREVIEW_SCALE = 2
LABELS = {
    GROUND_TRUTH: "ground truth",
    GENERATED: "right trajectory",
    STATIONARY: "stationary trajectory",
    SHUFFLED: "another clip's trajectory",
}
NOT_MEASURED = [
    "Image quality (FVD and the like): the model is tiny, trains from nothing for minutes and has seen few rooms.",
    "Camera errors of the generated videos mean something only where the estimator registers them, which it rarely "
    "does at this size; the table counts the failures. The demo's evidence is the frame errors above, not RotErr.",
    "GPUs, NCCL, mixed precision and released weights: this page was made on CPUs with gloo in float32.",
    "Generalisation to unknown rooms: held-out clips are new paths through rooms that training has seen.",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoRun:
    """What the demo did, beyond the files it left."""

    folder: Path
    train: RunFolder
    killed_at: int
    resumed_from: int
    seconds: dict[str, float]


def write_report(demo: DemoRun) -> Path:
    """Write report.html into the run folder and return its path; also print its two tables."""
    config = read_config(demo.train.config)
    evaluation = _results(demo.folder / "evaluation")
    estimator = _results(demo.folder / "estimator")
    page = HtmlReport("cami2v demo: does the camera matter?")
    rows = [json.loads(line) for line in demo.train.metrics.read_text().splitlines()]
    steps = [row for row in rows if "loss" in row]
    page.paragraph(
        f"A tiny CamI2V ({_count(demo)} trained parameters) learned from nothing in {steps[-1]['step']} steps on two "
        "CPU processes under DeepSpeed ZeRO-2. Given one image, a caption and a camera path, it had to show what the "
        "camera sees along that path. The same command line trains the full model on GPUs."
    )
    _camera_section(page, evaluation)
    _clips_section(page, EvaluationFolder(demo.folder / "evaluation"))
    _sample_section(page, demo.folder / "samples")
    _metrics_section(page, evaluation, estimator)
    _training_section(page, demo, steps, config)
    page.heading("What was not measured")
    page.items(NOT_MEASURED)
    page.heading("Time")
    page.table(["stage", "seconds"], [[name, f"{seconds:.0f}"] for name, seconds in demo.seconds.items()])
    _write_preview(EvaluationFolder(demo.folder / "evaluation"), demo.folder / "preview.webp")
    path = demo.folder / "report.html"
    page.save(path)
    return path


def _write_preview(folder: EvaluationFolder, path: Path) -> None:
    """Write the README's picture: some clips, one a row, under the trajectories of `LABELS`, left to right."""
    rows = [
        side_by_side([read_frames(folder.video(name, clip_id)) for name in LABELS], gap=2)
        for clip_id in folder.clip_ids()[:: len(folder.clip_ids()) // PREVIEW_CLIPS][:PREVIEW_CLIPS]
    ]
    grid = np.concatenate(rows, axis=1)
    larger = grid.repeat(PREVIEW_SCALE, axis=1).repeat(PREVIEW_SCALE, axis=2)
    path.write_bytes(animation(larger, frames_per_second=SHOWN_FRAMES_PER_SECOND))


def _camera_section(page: HtmlReport, evaluation: dict[str, Any]) -> None:
    page.heading("Error to the true frames, by the trajectory the model was told")
    summary = evaluation["summary"]
    errors = {
        name: {figure: summary[name]["figures"][figure]["mean"] for figure in ("MSE", "PSNR_dB")}
        for name in (GENERATED, STATIONARY, SHUFFLED)
    }
    right = errors[GENERATED]["MSE"]
    rows = [
        [LABELS[name], f"{error['MSE']:.5f}", f"{error['PSNR_dB']:.2f}", f"{error['MSE'] / right:.2f}x"]
        for name, error in errors.items()
    ]
    page.table(["trajectory", "mean squared error", "PSNR (dB)", "relative to right"], rows)
    page.paragraph(
        f"Mean over {summary[GENERATED]['figures']['MSE']['counted']} held-out clips (new paths through known rooms) "
        "and all frames but the first, pixel values in [0, 1]. Same model, image, caption and noise in all three rows: "
        "only the trajectory differs."
    )
    page.paragraph(f"Before generating, on one clip: {sentence(evaluation['camera_effect'])}.")
    print("\n".join(f"      {row[0]:<28} MSE {row[1]}  PSNR {row[2]} dB  {row[3]}" for row in rows))


def _clips_section(page: HtmlReport, folder: EvaluationFolder) -> None:
    page.heading("Held-out clips")
    for clip_id in folder.clip_ids()[:SHOWN_CLIPS]:
        videos = {label: read_frames(folder.video(name, clip_id)) for name, label in LABELS.items()}
        cameras = folder.read_cameras(clip_id).batch()
        path = relative_poses(cameras.world_to_camera, torch.zeros(1, dtype=torch.int64))[0]
        page.clips(
            videos,
            height=SHOWN_HEIGHT,
            frames_per_second=SHOWN_FRAMES_PER_SECOND,
            figures={f"{clip_id}: the path, from above": trajectory_figure({"path": path}, inches=PATH_INCHES)},
        )


def _sample_section(page: HtmlReport, folder: Path) -> None:
    page.heading("A preset trajectory")
    page.paragraph("cami2v sample on the first frame of a held-out clip: the image, the video, the path asked for.")
    for video in sorted(folder.glob("*-side-by-side.mp4")):
        name = video.stem.removesuffix("-side-by-side")
        page.clips({name: read_frames(video)}, height=SHOWN_HEIGHT, frames_per_second=SHOWN_FRAMES_PER_SECOND)


def _metrics_section(page: HtmlReport, evaluation: dict[str, Any], estimator: dict[str, Any]) -> None:
    page.heading("Camera errors by structure from motion")
    page.paragraph(
        "RotErr in radians, TransErr and CamMC with translations divided by the path's own extent, each summed over "
        "frames (the published convention); mean over registered clips, and penalised mean over all clips. The first "
        "row is the estimator's own error on true videos at the packed size."
    )
    size = "x".join(str(side) for side in reversed(estimator["evaluation"]["resolution"]))
    small = "x".join(str(side) for side in reversed(evaluation["evaluation"]["resolution"]))
    rows = [
        _metric_row(f"ground truth, {size}", estimator["summary"][GROUND_TRUTH]),
        _metric_row(f"ground truth, {small}", evaluation["summary"][GROUND_TRUTH]),
        _metric_row(f"generated, {small}", evaluation["summary"][GENERATED]),
    ]
    header = ["videos", "clips", "failed clips", "RotErr", "TransErr", "CamMC", "CamMC, failures penalised"]
    page.table(header, rows)
    for row in (header, *rows):
        print("      " + "  ".join(f"{cell:<22}" if i == 0 else f"{cell:>12}" for i, cell in enumerate(row)))


def _metric_row(name: str, summary: dict[str, Any]) -> list[str]:
    figures = summary["figures"]
    means = [figures[key]["mean"] for key in ("RotErr_sum_rad", "TransErr_sum", "CamMC_sum")]
    cells = ["none registered" if mean is None else f"{mean:.3f}" for mean in means]
    penalised = f"{figures['CamMC_sum']['penalised_mean']:.3f}"
    return [name, str(summary["clips"]), str(figures["CamMC_sum"]["failed"]), *cells, penalised]


def _training_section(page: HtmlReport, demo: DemoRun, steps: list[dict[str, Any]], config: Any) -> None:
    page.heading("Training, killed and resumed")
    page.figure(_loss_curve(demo, steps))
    last = steps[-1]
    page.paragraph(
        f"kill -9 hit the run after step {demo.killed_at}; it resumed from the checkpoint of step {demo.resumed_from} "
        f"with optimizer, data position and random state. At the end {last['samples_per_second']:.1f} samples/s, "
        f"{last['data_wait_share']:.0%} of the time waiting for data, and "
        f"{last['peak_memory_bytes'] / 2**30:.2f} GiB peak memory per process."
    )
    frames, (height, width) = config.data.frames, config.data.resolution
    page.items(
        [
            f"{frames} frames of {height}x{width}, global batch {config.trainer.global_batch_size}",
            f"backbone of widths {list(config.backbone.widths)}, CamI2V with epipolar attention at every level",
            f"{config.diffusion.prediction} prediction, {config.sampler.steps} DDIM steps when sampling",
        ]
    )


def _loss_curve(demo: DemoRun, steps: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    axes = figure.add_subplot()
    halves = {
        "before the kill": [row for row in steps if row["step"] <= demo.resumed_from],
        "after the resume": [row for row in steps if row["step"] > demo.resumed_from],
    }
    for index, (label, rows) in enumerate(halves.items()):
        axes.plot([row["step"] for row in rows], [row["loss"] for row in rows], color=f"C{index}", alpha=0.25)
        axes.plot([row["step"] for row in rows], _smooth([row["loss"] for row in rows]), color=f"C{index}", label=label)
    axes.axvline(demo.killed_at, color="black", linestyle=":", label="kill -9")
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.set_yscale("log")
    axes.legend()
    return figure


def _smooth(values: list[float], keep: float = 0.95) -> list[float]:
    """Average exponentially, for the eye."""
    smooth: list[float] = []
    for value in values:
        smooth.append(value if not smooth else keep * smooth[-1] + (1 - keep) * value)
    return smooth


def _results(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def _count(demo: DemoRun) -> str:
    from cami2v.checkpoints.load import find_weights, read_weights

    parameters = sum(weight.numel() for weight in read_weights(find_weights(demo.train.path)).values())
    return f"{parameters / 1e6:.1f} million"
