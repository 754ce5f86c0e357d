"""What `cami2v evaluate` asks a depth network for: errors in metres, where `depth` names one."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from omegaconf import DictConfig

from cami2v.evaluation.measures.base import Measure
from cami2v.evaluation.measures.metric_poses import MetricPoses
from cami2v.evaluation.path_scale import FrameDepth, PathScaleSettings
from data_pipeline.metric_scale.depth import DepthFrames
from launch.compose import settings
from launch.depth_network import RANDOM, NetworkDepth, NetworkSettings, network_depth
from launch.evaluation_settings import EvaluationSettings


class NetworkFrameDepth(FrameDepth):
    """The network of config group `depth`, loaded when the first frame is looked at."""

    def __init__(self, node: DictConfig, depth_weights: str | None) -> None:
        self.node = node
        self.weights = NetworkSettings(depth_weights=depth_weights, device="auto")

    @cached_property
    def network(self) -> NetworkDepth:
        """The network. Raises ValueError for absent or unexpected weights."""
        return network_depth(self.node, self.weights)

    def prepare(self) -> None:
        """Raise ValueError for absent or unexpected weights; leaves the memory to the generating model."""
        network_depth(self.node, self.weights)

    def describe(self) -> dict[str, Any]:
        """Return the network, and the hash of its parameters."""
        found = self.network.description()
        named = {"weights": found["weights"], "parameters": found["parameters"], "released": found.get("released")}
        if self.weights.depth_weights == RANDOM:
            named["warning"] = "random weights: errors in metres mean nothing"
        return {
            "depth": found["network"].rpartition(".")[2],
            **{f"depth_{key}": value for key, value in named.items() if value is not None},
            "depth_config": found["config"],
        }

    def metres(self, frame: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "rows columns"]:
        """Return the network's depth of a frame."""
        return self.network(DepthFrames(clip_id="", split=None, numbers=(0,), images=frame[None]))[0]


def metric_measure(config: DictConfig, evaluation: EvaluationSettings, others: list[Measure]) -> list[Measure]:
    """Return the measure of errors in metres; none without a depth network. Raises ValueError where it cannot be."""
    if not config.get("depth"):
        if config.depth_weights is not None:
            raise ValueError(
                f"depth_weights={config.depth_weights}: of no network; add depth=depth_anything_v2_hypersim_vitl"
            )
        return []
    if MetricPoses.needs not in {measure.name for measure in others}:
        raise ValueError(
            "depth=...: brings estimated paths to metres, but evaluation.measures.poses, which estimates them, is null"
        )
    scale = settings(evaluation.metric_scale, PathScaleSettings, "evaluation.metric_scale")
    return [MetricPoses(depth=NetworkFrameDepth(config.depth, config.depth_weights), scale=scale)]
