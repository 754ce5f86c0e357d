"""What a run starts from: released weights, weights of other runs; loaded in that order, again at every resume.

A run's own checkpoints hold only what it trains. The rest comes from here, and `base_fingerprint` proves that it is the
same as before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from cami2v.checkpoints.load import find_weights, load_weights, read_metadata, weight_names
from cami2v.checkpoints.load_released import load_released, match_released
from cami2v.checkpoints.report import LoadReport
from cami2v.model import VideoDiffusion
from cami2v.training.run_folder import AVERAGE, WEIGHTS, RunFolder
from launch.build import build_skeleton
from launch.compose import read_config

Given = str | Path | Sequence[str | Path] | None
"""One file or folder, a list of files, or files joined by commas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingPoint:
    """Files to load, in this order: released ones, then trained weights of runs, the oldest run first."""

    released: tuple[Path, ...] = ()
    trained: tuple[Path, ...] = ()

    def recorded(self) -> list[str] | str | None:
        """Return what the run's config.yaml keeps as `init_from`."""
        last = self.trained[-1:] or self.released
        names = [str(path.absolute()) for path in last]
        return names[0] if len(names) == 1 else names or None

    def check(self, config: DictConfig) -> None:
        """Raise ValueError where the released files do not fit the model, before anything large is built."""
        if self.released:
            match_released(self.released, build_skeleton(config), camera_may_be_missing=True)

    def load(self, model: VideoDiffusion, *, trained: Collection[str] = (), hashes: bool = True) -> LoadReport | None:
        """Load everything that a checkpoint with the names `trained` will not bring; report on the released part."""
        report = None
        if self.released:
            report = load_released(self.released, model, camera_may_be_missing=True, hashes=hashes)
        for path in self.trained:
            if not weight_names(path) <= set(trained):
                load_weights(path, model)
        return report


def starting_point(given: Given, *, key: str, resuming: bool = False) -> StartingPoint:
    """Find the files behind `init_from`; a run's weights bring what that run started from.

    When resuming, weights of other runs may be gone: mostly the checkpoint holds all of theirs, and if not, the
    fingerprint tells. Raises ValueError for files that do not exist, naming `key`.
    """
    trained: list[Path] = []
    paths = paths_of(given)
    while len(paths) == 1 and (paths[0].is_dir() or paths[0].is_file()) and is_run(paths[0]):
        weights = find_weights(paths[0])
        if weights in trained:
            break
        trained.insert(0, weights)
        run = run_of(weights)
        paths = paths_of(read_config(RunFolder(run).config).get("init_from")) if run else []
        key = f"{run}/config.yaml: init_from"
    for path in paths:
        if path.exists():
            continue
        if resuming and path.name in (WEIGHTS, AVERAGE):
            paths = []
            break
        raise ValueError(
            f"{key}={path}: does not exist; give a run folder, its weights or a released file (if a run's base has "
            "moved, name where it is now: init_from=<file> to train, base=<file> to sample)"
        )
    return StartingPoint(released=tuple(paths), trained=tuple(trained))


def paths_of(given: Given) -> list[Path]:
    """Split a setting into paths."""
    if given is None:
        return []
    if isinstance(given, (str, Path)):
        whole = Path(given).expanduser()
        parts = [whole] if whole.exists() else [Path(part.strip()).expanduser() for part in str(given).split(",")]
        return [part for part in parts if str(part) != "."]
    return [Path(part).expanduser() for part in given]


def is_run(path: Path) -> bool:
    """Tell a run, its checkpoint or the weights it trained from everything else."""
    if path.is_dir():
        run = RunFolder(path)
        return run.config.is_file() or run.checkpoints.is_dir() or (path / WEIGHTS).is_file()
    return path.suffix == ".safetensors" and "base_fingerprint" in read_metadata(path)


def run_of(path: Path) -> Path | None:
    """Return the run folder that a run, one of its checkpoint folders or its weights belong to."""
    return next((folder for folder in (path, *path.parents[:3]) if RunFolder(folder).config.is_file()), None)
