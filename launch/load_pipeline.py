"""Runs and released files as pipelines: what `Pipeline.from_pretrained` finds through its entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cami2v.inference.exported import is_exported, load_exported
from cami2v.inference.model_facts import Defaults
from cami2v.inference.source import PARTS, PipelineSource, differing_weights
from cami2v.signature import build_settings
from cami2v.training.run_folder import AVERAGE
from launch.compose import plain
from launch.load_model import LoadedModel, Source, held_out_stride, load_model


def load(
    checkpoint: str | Path | Sequence[str | Path],
    *,
    experiment: str | None = None,
    overrides: Sequence[str] = (),
    base: str | Sequence[str] | None = None,
    weights: str = "trained",
    attention: str | None = None,
    load_report: Path | None = None,
) -> PipelineSource:
    """Load a run, an exported folder, or released files with their experiment.

    The keywords are keys of `cami2v sample`. Raises what `load_model` and `load_exported` raise.
    """
    if isinstance(checkpoint, (str, Path)) and is_exported(Path(checkpoint).expanduser()):
        if experiment is not None or overrides or base is not None or weights != "trained":
            raise ValueError(
                f"checkpoint={checkpoint}: an exported folder is complete; leave out experiment, base, weights"
            )
        return load_exported(Path(checkpoint).expanduser())
    given = [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint)
    names = [str(path) for path in given]
    values = {
        "checkpoint": names[0] if len(names) == 1 else names,
        "from_experiment": experiment,
        "overrides": list(overrides),
        "base": base,
        "weights": weights,
        "attention": attention,
        "load_report": load_report,
    }
    # The pipeline places the parts: not all of them may fit on one device.
    return source_of(load_model(build_settings(Source, values, "from_pretrained"), device="cpu"))


def load_recorded(
    identity: Mapping[str, Any], checkpoint: str | Sequence[str] | None, base: str | Sequence[str] | None
) -> PipelineSource:
    """Load the model that a video was made by; `checkpoint` and `base` say where its files are now.

    Raises ValueError where its weights are others than they were.
    """
    weights = "ema" if identity.get("weights") == AVERAGE else "trained"
    source = load(
        str(identity.get("path")) if checkpoint is None else checkpoint,
        experiment=identity.get("experiment"),
        overrides=identity.get("overrides", ()),
        base=base,
        weights=weights,
        attention=identity.get("attention"),
    )
    key = differing_weights(identity, source.identity)
    if key is not None:
        raise ValueError(
            f"checkpoint={source.identity['path']}: its weights are not those that made the video ({key}); the run "
            "went on, or it is another one: checkpoint=<where they are>"
        )
    return source


def source_of(loaded: LoadedModel) -> PipelineSource:
    """Return what a pipeline needs of a loaded model."""
    config = loaded.config
    height, width = config.data.resolution
    # Resolved as a whole: parts refer to keys that are not kept.
    everything = plain(config, "config")
    kept = {key: everything[key] for key in PARTS if everything.get(key) is not None}
    return PipelineSource(
        model=loaded.model,
        sampler=loaded.sampler,
        config=kept,
        defaults=Defaults(
            frames=config.data.frames,
            height=height,
            width=width,
            frame_stride=held_out_stride(config),
            scale_policy=str(config.data.get("scale_policy") or "that of the shards"),
        ),
        identity={
            **loaded.identity,
            "path": ",".join(
                str(Path(part).expanduser().absolute()) for part in str(loaded.identity["path"]).split(",")
            ),
            "attention": str(config.get("attention") or "auto"),
        },
    )
