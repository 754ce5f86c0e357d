"""An evaluation's tables in Weights & Biases, from the same results as every other form of the report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbSettings:
    """Where the tables go."""

    mode: Literal["off", "offline", "online"]
    project: str
    entity: str | None


def tables(results: Mapping[str, Any]) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """Return header and rows of the tables by name: figures of sets, distances of sets, clips, trials."""
    figures = list(results["figures"])
    kinds = ("mean", "median", "penalised_mean", "failure_rate")
    header = ["videos", "figure", "unit", "counted", "failed"]
    header += [column for kind in kinds for column in (kind, f"{kind}_low", f"{kind}_high")]
    summary = [
        [
            video_set,
            name,
            results["figures"][name]["unit"],
            figure["counted"],
            figure["failed"],
            *(value for kind in kinds for value in (figure[kind], *(figure[f"{kind}_interval"] or (None, None)))),
        ]
        for video_set, row in results["summary"].items()
        for name, figure in row["figures"].items()
    ]
    distances = [
        [video_set, measure, each["label"], each["value"], each["clips"], "; ".join(each["notes"])]
        for video_set, row in results["summary"].items()
        for measure, each in row["distances"].items()
    ]
    clips = [
        [clip["video_set"], clip["clip_id"], len(clip["failures"]), *(clip["values"].get(name) for name in figures)]
        for clip in results["clips"]
    ]
    trials = [
        [clip["video_set"], clip["clip_id"], each["measure"], each["trial"], each["failure"] or ""]
        + [each["values"].get(name) for name in figures]
        for clip in results["clips"]
        for each in clip["attempts"]
    ]
    return {
        "summary": (header, summary),
        "distances": (["videos", "measure", "label", "value", "clips", "notes"], distances),
        "clips": (["videos", "clip", "failures", *figures], clips),
        "trials": (["videos", "clip", "measure", "trial", "failure", *figures], trials),
    }


def log_tables(results: Mapping[str, Any], folder: Path, settings: WandbSettings) -> None:
    """Log every table, and the means as the run's summary; the run of an evaluation folder is always the same one.

    Raises ValueError where Weights & Biases refuses; the report's files are written before.
    """
    if settings.mode == "off":
        return
    # Imported here: it takes a second, and `off` must not need it.
    import wandb

    try:
        run = wandb.init(
            id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12],
            name="/".join(folder.resolve().parts[-3:]),
            dir=str(folder),
            project=settings.project,
            entity=settings.entity,
            mode=settings.mode,
            job_type="evaluation",
            resume="allow",
            config={"evaluation": results["evaluation"], "measures": results["measures"]},
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.log(
            {name: wandb.Table(columns=[*head], data=rows) for name, (head, rows) in tables(results).items() if rows}
        )
        for video_set, row in results["summary"].items():
            for name, figure in row["figures"].items():
                run.summary[f"{video_set}/{name}"] = figure["mean"]
                run.summary[f"{video_set}/{name}_failures_counted"] = figure["penalised_mean"]
            for measure, each in row["distances"].items():
                run.summary[f"{video_set}/{measure}"] = each["value"]
        run.finish()
    except wandb.errors.Error as error:
        raise ValueError(
            f"evaluation.wandb.mode={settings.mode}: Weights & Biases refuses ({str(error).splitlines()[0]}); log in "
            "(wandb login) or set evaluation.wandb.mode=offline; the report itself is written"
        ) from error
