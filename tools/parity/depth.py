"""The depth network against the published one."""

from __future__ import annotations

from typing import Any

import torch

from cami2v.encoders.depth_anything import DepthAnythingV2
from tools.parity.checks import Checks
from tools.parity.network_cases import ModelCase, compare_output, compare_tap
from tools.parity.weights import give_weights

TOWERS: dict[str, dict[str, Any]] = {
    "vits": {"width": 384, "num_heads": 6, "layers": 12, "read_blocks": [2, 5, 8, 11]},
    "vitb": {"width": 768, "num_heads": 12, "layers": 12, "read_blocks": [2, 5, 8, 11]},
    "vitl": {"width": 1024, "num_heads": 16, "layers": 24, "read_blocks": [4, 11, 17, 23]},
}
"""What the published names of towers stand for."""


@torch.no_grad()
def depth(case: ModelCase) -> Checks:
    """Compare the tokens the head reads and the metric depth of normalised images."""
    checks = Checks()
    network = build_depth(case.hyper_parameters["depth_anything"])
    give_weights(checks, case, "depth", network)
    pixels = case.input("x")
    for level, tokens in enumerate(network.read_tokens(pixels)):
        compare_tap(checks, case, f"dino_layer_{level}", tokens)
    compare_output(checks, case, "depth", network(pixels))
    return checks


def build_depth(settings: dict[str, Any]) -> DepthAnythingV2:
    """Build a network from published settings. Raises ValueError for a tower that we lack."""
    if settings["encoder"] not in TOWERS:
        raise ValueError(f"depth network on {settings['encoder']!r}; towers are {', '.join(TOWERS)}")
    network = DepthAnythingV2(
        **TOWERS[settings["encoder"]],
        head_width=settings["features"],
        head_channels=settings["out_channels"],
        max_depth_metres=float(settings["max_depth"]),
    )
    return network.eval()
