"""Full-size models of our published recipes against the parameter lists of the released ones, built on `meta`."""

from __future__ import annotations

import functools
import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from cami2v.camera_control.pose_encoder import PoseTemporalBlock
from cami2v.checkpoints.released_names import Translation, our_names, released_names, to_released_shape
from cami2v.model import VideoDiffusion
from launch.build import build_model
from launch.compose import compose_config
from tools.parity.checks import Checks
from tools.parity.weights import expect_none

EXPERIMENTS = {
    ("DynamiCrafter", "256x256"): "dynamicrafter_256",
    ("DynamiCrafter", "512x320"): "dynamicrafter_512",
    ("MotionCtrl", "256x256"): "motionctrl_256",
    ("CameraCtrl", "256x256"): "cameractrl_256",
    ("CamI2V", "256x256"): "cami2v_256",
    ("CamI2V", "512x320"): "cami2v_512",
    ("RealCam_I2V", "256x256"): "realcam_i2v_256",
    ("RealCam_I2V", "512x320"): "realcam_i2v_512",
}
"""Our recipe of a published model class at a resolution, which the name of the published config ends in."""

DEPTH = "depth=depth_anything_v2_hypersim_vitl"
PARTLY_USED = ("cond_stage_model.", "embedder.", "depth_predictor.")
"""Released components with parameters that nothing reads."""
RESCALE_TABLE = 1400
"""Entries of `scale_arr`, of which the schedule's timesteps are ever read."""


@dataclass(frozen=True)
class Manifest:
    """All parameters and buffers of one released configuration."""

    name: str
    path: Path

    @functools.cached_property
    def content(self) -> dict[str, Any]:
        """What the file holds."""
        with gzip.open(self.path, "rt") as file:
            return json.load(file)

    def shapes(self, kind: str) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of the parameters (`param`) or of the persistent buffers (`buffer`)."""
        return {entry["name"]: tuple(entry["shape"]) for entry in self.content["entries"] if entry["kind"] == kind}

    @property
    def trainable(self) -> set[str]:
        """Names of what the released recipe trains."""
        return {entry["name"] for entry in self.content["entries"] if entry["trainable"]}

    @property
    def overrides(self) -> list[str] | None:
        """Return the command line that describes our model; None where we have no such recipe."""
        published = self.content["target"].rsplit(".", 1)[-1]
        resolution = Path(self.content["config"]).stem.rsplit("_", 1)[-1]
        experiment = EXPERIMENTS.get((published, resolution))
        if experiment is None:
            return None
        has_depth = any(entry["name"].startswith("depth_predictor.") for entry in self.content["entries"])
        return [f"experiment={experiment}", *([DEPTH] if has_depth else [])]


def find_manifests(folder: Path) -> list[Manifest]:
    """List the manifests of a folder by name. Raises ValueError where there are none."""
    paths = sorted(folder.glob("*.json.gz"))
    if not paths:
        raise ValueError(f"{folder}: no *.json.gz; give a folder in the format of shared/golden/manifests")
    return [Manifest(name=path.name.removesuffix(".json.gz"), path=path) for path in paths]


def run(manifest: Manifest) -> Checks:
    """Compare names, shapes, buffers, the trainable set and the totals of one configuration."""
    checks = Checks()
    overrides = manifest.overrides
    if overrides is None:
        raise ValueError(f"{manifest.name}: no recipe for {manifest.content['target']} {manifest.content['config']}")
    config = compose_config("train", overrides)
    with torch.device("meta"):
        model = build_model(config)
    parameters, buffers = manifest.shapes("param"), manifest.shapes("buffer")
    translation = our_names([*parameters, *buffers])
    compare_parameters(checks, model, parameters, translation)
    compare_buffers(checks, model, buffers, translation, rescaled=config.diffusion.schedule.dynamic_rescale_base != 1)
    compare_trainable(checks, model, manifest, translation, policy=config.trainer.trainable)
    compare_totals(checks, model, manifest, translation)
    return checks


def compare_parameters(
    checks: Checks, model: VideoDiffusion, parameters: dict[str, tuple[int, ...]], translation: Translation
) -> None:
    """Compare names both ways and shapes, one to one."""
    actual = {name: tuple(to_released_shape(name, value).shape) for name, value in model.named_parameters()}
    expected = {ours: name for name, ours in translation.ours.items()}
    used = f"{len(actual)} parameters for {len(parameters)} released ones"
    expect_none(checks, f"{used}: released names that no rule explains", translation.unknown)
    expect_none(checks, "parameters without a released one", actual.keys() - expected.keys())
    expect_none(checks, "released parameters without one of ours", expected.keys() - actual.keys())
    expect_none(checks, "buffers taken for parameters", translation.ours.keys() - parameters.keys())
    back = released_names(actual)
    expect_none(
        checks, "names that do not translate back", [n for n in back.keys() & expected if back[n] != expected[n]]
    )
    other = [n for n, shape in actual.items() if n in expected and shape != parameters.get(expected[n])]
    expect_none(checks, "shapes unlike the released ones", other)
    left_out = [name for name in translation.unused if name in parameters and not name.startswith(PARTLY_USED)]
    expect_none(checks, "unused parameters outside the CLIP towers and the depth network", left_out)


def compare_buffers(
    checks: Checks,
    model: VideoDiffusion,
    buffers: dict[str, tuple[int, ...]],
    translation: Translation,
    *,
    rescaled: bool,
) -> None:
    """Compare the buffers, none of which we load, with what we derive instead."""
    expect_none(checks, "buffers without a reason", buffers.keys() - translation.unused.keys())
    tables = {name: shape for name, shape in buffers.items() if "." not in name and not name.startswith("depth_")}
    rescale_table = tables.pop("scale_arr", None)
    checks.equal("schedule tables", set(tables.values()), {(model.schedule.timesteps,)})
    checks.equal("table of the dynamic rescale", (RESCALE_TABLE,) if rescaled else None, rescale_table)
    positions = [m.positions.shape for m in model.modules() if isinstance(m, PoseTemporalBlock)]
    stored = [shape for name, shape in buffers.items() if name.endswith(".pos_encoder.pe")]
    checks.equal("positions of the pose encoder", Counter((1, *shape) for shape in positions), Counter(stored))


def compare_trainable(
    checks: Checks,
    model: VideoDiffusion,
    manifest: Manifest,
    translation: Translation,
    *,
    policy: Literal["camera", "all"] | Sequence[str],
) -> None:
    """Compare what our recipe trains, where the released one trains at all."""
    published = {translation.ours.get(name, name) for name in manifest.trainable}
    if not published:
        return
    ours = set(model.select_trainable(policy))
    expect_none(checks, "trained here only", ours - published)
    expect_none(checks, "trained there only", published - ours)
    count = sum(model.get_parameter(name).numel() for name in ours)
    checks.equal("trainable parameters", count, manifest.content["totals"]["n_params_trainable"])


def compare_totals(checks: Checks, model: VideoDiffusion, manifest: Manifest, translation: Translation) -> None:
    """Compare the parameters of every component, those of CLIP that nothing reads added back."""
    totals, released = manifest.content["totals"], manifest.shapes("param")
    expected = {ours: name for name, ours in translation.ours.items()}
    sizes = {expected.get(name, name): value.numel() for name, value in model.named_parameters()}
    sizes |= {name: torch.Size(released[name]).numel() for name in translation.unused if name in released}
    checks.equal("parameters in all", sum(sizes.values()), totals["n_params_total"])
    checks.equal("parameter tensors in all", len(sizes), totals["n_param_tensors"])
    for component, published in totals["by_component"].items():
        count = sum(size for name, size in sizes.items() if name.startswith(f"{component}."))
        checks.equal(f"parameters of {component}", count, published["params"])
