"""`cami2v app`: a page in the browser to animate pictures."""

from __future__ import annotations

import functools
import json
import signal
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from cami2v.encoders.base import DepthEstimator
from cami2v.inference.app.models import ModelChoice
from cami2v.inference.app.server import Server, prepare, start
from cami2v.inference.app.settings import Limits, PreviewSettings, ServerSettings
from cami2v.inference.app.studio import Studio
from cami2v.inference.captioner import CaptionerSettings
from cami2v.inference.exported import DESCRIPTION, is_exported
from cami2v.inference.pipeline import Pipeline
from cami2v.inference.request import Precision
from cami2v.inference.source import PipelineSource
from cami2v.signature import TARGET, build_settings
from cami2v.training.run_folder import AVERAGE, RunFolder
from launch.compose import entry, read_config, settings
from launch.depth_network import NetworkSettings, network_depth
from launch.load_pipeline import load
from launch.starting_point import is_run, run_of
from launch.untrained import METHODS, untrained_source

DEMO = Path("demo", "train")
DEMO_NOTE = (
    "This model is tiny: make demo trained it in minutes on one synthetic room, at 64\u00d764. It shows how the app "
    "works, not what camera control can do."
)
UNTRAINED_NOTE = (
    "This model is tiny and UNTRAINED: its videos are noise. It shows how the app works; start it with your own: "
    "cami2v app checkpoint=<run or exported folder>."
)
MOST_STEPS = 8
"""Checkpoints of a run that are offered, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """Settings of conf/app.yaml."""

    checkpoint: str | Sequence[str] | None
    from_experiment: str | None
    methods: Mapping[str, Any] | None
    held_models: int
    precision: Precision
    offload: bool
    depth_weights: str | None
    device: Literal["auto", "cpu", "cuda"]
    captioner: CaptionerSettings | None
    server: ServerSettings
    limits: Limits
    preview: PreviewSettings
    frames_per_second: float
    output: Path

    def __post_init__(self) -> None:
        """Raise ValueError for values out of range."""
        if self.checkpoint is not None and self.methods is not None:
            raise ValueError("checkpoint and methods: got both; give one of them")
        if self.held_models < 1:
            raise ValueError(f"held_models={self.held_models}: must be at least 1")
        if not self.frames_per_second > 0:
            raise ValueError(f"frames_per_second={self.frames_per_second}: must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A checkpoint in `methods`, where its path does not say all."""

    checkpoint: str | Sequence[str]
    from_experiment: str | None = None
    overrides: Sequence[str] = ()
    base: str | Sequence[str] | None = None
    weights: Literal["trained", "ema"] = "trained"
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How models are loaded, all of them alike."""

    precision: Precision
    offload: bool
    network: DepthEstimator | None
    """Takes the place of the models' own depth networks."""


def run(config: DictConfig) -> None:
    """Serve until interrupted."""
    # Whoever ends it in whatever way, uploads and results do not stay behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="cami2v-app-") as folder:
        chosen, server = start_app(config, Path(folder))
        print(f"cami2v app: {server.address}", flush=True)
        if server.shared_address is not None:
            print(f"shared: {server.shared_address}", flush=True)
        print(f"videos: {chosen.output}; to end it: Ctrl-C", flush=True)
        server.wait()


def start_app(config: DictConfig, folder: Path) -> tuple[AppSettings, Server]:
    """Start the server; uploads and what is served are in `folder`. Raises ValueError for wrong settings."""
    prepare(folder)
    own = {key: config[key] for key in AppSettings.__dataclass_fields__}
    chosen = settings(DictConfig(own), AppSettings, "app")
    network = _depth_network(config, chosen)
    studio = Studio(
        choices=choices_of(chosen, Path(str(config.paths.runs)).expanduser(), network),
        held_models=chosen.held_models,
        limits=chosen.limits,
        preview=chosen.preview,
        depth_network=None if network is None else functools.partial(_depth, network),
        captioner=chosen.captioner,
        served=folder / "results",
        output=chosen.output.expanduser(),
        frames_per_second=chosen.frames_per_second,
    )
    return chosen, start(studio, chosen.server, folder)


def choices_of(chosen: AppSettings, runs: Path, network: DepthEstimator | None = None) -> list[ModelChoice]:
    """List what the page offers. Raises ValueError for entries that cannot be read, or paths that do not exist."""
    how = Loading(precision=chosen.precision, offload=chosen.offload, network=network)
    if chosen.methods is not None:
        return [
            choice
            for method, given in chosen.methods.items()
            for choice in _of_method(how, str(method), given, f"methods.{method}")
        ]
    if chosen.checkpoint is not None:
        entry = Entry(checkpoint=chosen.checkpoint, from_experiment=chosen.from_experiment)
        return _of_entry(how, _method_of(entry), "", entry)
    demo = runs / DEMO
    trained = _of_entry(how, "cami2v", "", Entry(checkpoint=str(demo), note=DEMO_NOTE)) if is_run(demo) else []
    untrained = [
        ModelChoice(
            method=method,
            checkpoint="tiny, untrained",
            load=functools.partial(_untrained, how, method, runs / "app" / "models" / f"untrained-{method}"),
            note=UNTRAINED_NOTE,
        )
        for method in METHODS
    ]
    return [*trained, *untrained]


def _untrained(how: Loading, method: str, folder: Path) -> Pipeline:
    return _pipeline(how, functools.partial(untrained_source, method, folder))


def _method_of(entry: Entry) -> str:
    """Return what the camera control of a checkpoint is called."""
    path = Path(entry.checkpoint if isinstance(entry.checkpoint, str) else entry.checkpoint[0]).expanduser()
    run = run_of(path) if path.exists() else None
    if run is not None:
        target = str(read_config(RunFolder(run).config).camera[TARGET])
    elif is_exported(path):
        described = json.loads((path / DESCRIPTION).read_text())
        target = str(described.get("config", {}).get("camera", {}).get(TARGET, "the model"))
    else:
        target = entry.from_experiment or "the model"
    return target.rpartition(".")[2]


def _of_method(how: Loading, method: str, given: Any, key: str) -> list[ModelChoice]:
    if isinstance(given, Mapping) and "checkpoint" not in given:
        return [
            choice
            for label, each in given.items()
            for choice in _of_entry(how, method, str(label), _entry(each, f"{key}.{label}"))
        ]
    return _of_entry(how, method, "", _entry(given, key))


def _entry(given: Any, key: str) -> Entry:
    values = given if isinstance(given, Mapping) else {"checkpoint": given}
    entry: Entry = build_settings(Entry, values, key)
    return entry


def _of_entry(how: Loading, method: str, label: str, entry: Entry) -> list[ModelChoice]:
    """Offer an entry; of a whole run its newest checkpoints, and their averages where it keeps them."""
    names = [entry.checkpoint] if isinstance(entry.checkpoint, str) else list(entry.checkpoint)
    for name in names:
        if not Path(name).expanduser().exists():
            raise ValueError(f"checkpoint={name}: does not exist")
    path = Path(names[0]).expanduser()
    if len(names) > 1 or not is_run(path) or path.name.startswith("step-"):
        return [_choice(how, method, label or path.name, entry, names)]
    run = RunFolder(path)
    offered = []
    for step in reversed(run.steps()[-MOST_STEPS:]):
        folder = run.checkpoint(step)
        words = f"{label}, step {step}" if label else f"{path.name}, step {step}"
        offered.append(_choice(how, method, words, entry, [str(folder)]))
        if (folder / AVERAGE).is_file() and entry.weights == "trained":
            average = Entry(**{**_fields(entry), "weights": "ema"})
            offered.append(_choice(how, method, f"{words}, average", average, [str(folder)]))
    if not offered:
        raise ValueError(f"checkpoint={path}: this run has no checkpoint yet")
    return offered


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in Entry.__dataclass_fields__}


def _choice(how: Loading, method: str, label: str, entry: Entry, paths: list[str]) -> ModelChoice:
    source = functools.partial(
        load,
        paths[0] if len(paths) == 1 else paths,
        experiment=entry.from_experiment,
        overrides=entry.overrides,
        base=entry.base,
        weights=entry.weights,
    )
    return ModelChoice(method=method, checkpoint=label, load=functools.partial(_pipeline, how, source), note=entry.note)


def _pipeline(how: Loading, source: functools.partial[PipelineSource]) -> Pipeline:
    return Pipeline(source(), precision=how.precision, offload=how.offload, depth_network=how.network)


def _depth_network(config: DictConfig, chosen: AppSettings) -> DepthEstimator | None:
    if not config.get("depth"):
        return None
    return network_depth(
        config.depth, NetworkSettings(depth_weights=chosen.depth_weights, device=chosen.device)
    ).network


def _depth(network: DepthEstimator, image: torch.Tensor) -> torch.Tensor:
    # Where it is now: models that sample may have moved it.
    device = next(network.parameters()).device
    with torch.no_grad():
        return network.metric_depth(image[None].to(device))[0].cpu()


main = entry("app")(run)

if __name__ == "__main__":
    main()
