"""A depth network as `cami2v data scale` uses it: built, filled with weights, and named by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from omegaconf import DictConfig

from cami2v.checkpoints.diagnosis import DEPTH
from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.named_weights import open_weights
from cami2v.checkpoints.released_files import released_with_hash
from cami2v.encoders.base import DepthEstimator
from cami2v.signature import TARGET
from data_pipeline.metric_scale.depth import DepthFrames, DepthMaps, DepthSource
from launch.compose import instantiate_part, plain

RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Which weights the network has, and where it runs."""

    depth_weights: str | None
    """Depth Anything's own file; `random`: as it is built, for trying the pipeline."""
    device: Literal["auto", "cpu", "cuda"]


class NetworkDepth(DepthSource):
    """A DepthEstimator as a source of depth for data_pipeline."""

    def __init__(self, network: DepthEstimator, description: Mapping[str, Any], device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device
        self._description = dict(description)

    def description(self) -> Mapping[str, Any]:
        """Return configuration, weights file and a hash of all parameters."""
        return self._description

    def stamp(self, clip_id: str, split: str | None) -> str:
        """Return nothing: a network has no data of single clips."""
        return ""

    def __call__(self, frames: DepthFrames) -> DepthMaps:
        """Estimate the depth of each frame, one at a time: at full size a single one fills a small card."""
        maps = []
        for image in frames.images:
            pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).float().div(127.5).sub(1)
            maps.append(self.network.metric_depth(rearrange(pixels, "h w rgb -> 1 rgb h w"))[0].float().cpu().numpy())
        return np.stack(maps)


def network_depth(node: DictConfig | None, settings: NetworkSettings) -> NetworkDepth:
    """Build the network of config group `depth` and load its weights.

    Raises ValueError where there is no network or no weights, and for weights of another network.
    """
    if not node:
        raise ValueError(
            "depth=none: give a depth network (depth=depth_anything_v2_hypersim_vitl) or depth_maps=<folder>"
        )
    config = plain(node, "depth")
    if settings.depth_weights is None and not config.get("weights"):
        raise ValueError(
            "depth_weights: not set, and a network without weights measures nothing; give Depth Anything's file "
            "(cami2v weights fetch depth_anything_v2_hypersim_vitl), or depth_weights=random to try the pipeline"
        )
    device = _device(settings.device)
    network: DepthEstimator = instantiate_part(node, "depth")
    weights = "random" if settings.depth_weights == RANDOM else str(config.get("weights"))
    description: dict[str, Any] = {"kind": "network", "config": {k: v for k, v in config.items() if k != "weights"}}
    if settings.depth_weights not in (None, RANDOM):
        weights, released = load_depth_weights(Path(str(settings.depth_weights)).expanduser(), network)
        description["released"] = released
    description["weights"] = Path(weights).name
    description["parameters"] = fingerprint(network, ())
    description["network"] = str(config[TARGET])
    return NetworkDepth(network, description, device)


def load_depth_weights(path: Path, network: DepthEstimator) -> tuple[str, str | None]:
    """Fill a depth network; return the file's name and which released file it is, if its content is known.

    Raises ValueError, with the network untouched, unless names and shapes are the network's.
    """
    opened = open_weights(path)
    wanted = {f"{DEPTH}{name}": parameter for name, parameter in network.named_parameters()}
    missing = sorted(wanted.keys() - opened.ours.keys())
    unexpected = sorted([*opened.unknown, *(n for n in opened.ours if n.startswith(DEPTH) and n not in wanted)])
    other = [name for name in wanted if name in opened.ours and opened.shape(name) != tuple(wanted[name].shape)]
    for what, names in (("has no", missing), ("has an unexpected", unexpected), ("has another shape of", other)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(
                f"depth_weights={path}: {what} {names[0]}{more}; give the file of the network that `depth` names"
            )
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(opened.read(name))
    released = released_with_hash(opened.archive.sha256())
    return path.name, released.name if released else None


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda: PyTorch finds no GPU here; device=cpu, or run where there is one")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
