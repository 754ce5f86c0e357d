"""Cases of the Frechet video distance: preprocessing, I3D, and the distance itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cami2v.evaluation.frechet import FeatureMoments, frechet_distance
from cami2v.evaluation.fvd_preprocessing import CONVENTIONS, middle_frames, preprocess, to_square
from cami2v.evaluation.i3d import I3D, IMAGE_SIZE
from cami2v.inference.clip_video import to_frames
from tools.parity.cases import Case, generator, normal
from tools.parity.checks import Checks

FULL_RANK, RANK_DEFICIENT = 1e-3, 1e-2
"""Published tolerances of the distance, by whether there are more features than dimensions; most of it is float32."""
FLOAT64 = 1e-6
LOGITS = 1e-3
"""Of the largest logit, as published; of the standard deviation for the stages before."""
PIXELS = 1e-5
"""Of values in [-1, 1]."""
WEIGHTS = 1e-9
"""Of sums of weights, relative to the sum of their magnitudes."""

PREPROCESSED = {
    "fvdcal": "videogpt_squash",
    "fvdcal_stylegan": "styleganv_128",
    "cmvideogpt": "videogpt_crop",
    "cmstylegan": "styleganv_224",
}
"""What the stored arrays call the conventions."""
MEASURED = {"fvdcal_pre": "videogpt_squash", "stylegan_pre": "styleganv_128", "cm_videogpt_pre": "videogpt_crop"}
"""What the JSON calls them."""


def frechet(case: Case) -> Checks:
    """Compare the distance of random features with every published variant, and the choice of middle frames."""
    checks = Checks()
    for row in case.parameters["rows"]:
        _frechet_row(checks, row, case.split)
    for name, published in case.parameters.get("middle_indices", {}).items():
        count, length = (int(number) for number in name.split("of"))
        checks.equal(f"middle {name}", middle_frames(length, count, compatibility="published"), published)
        ours = middle_frames(length, count)
        checks.equal(f"ours stays inside {name}", 0 <= ours[0] <= ours[-1] < length, True)
    return checks


def _frechet_row(checks: Checks, row: dict[str, Any], split: str) -> None:
    first, second, width = row["N"], row["M"], row["d"]
    name, key = f"{first} and {second} features of {width}", f"frechet/{split}/{first}x{width}"
    real = FeatureMoments.of(normal(f"{key}/a", (first, width)))
    columns = torch.linspace(0.5, 1.5, width)
    generated = FeatureMoments.of((0.8 * normal(f"{key}/b", (second, width)) + 0.3) * columns)
    tolerance = FULL_RANK if min(first, second) > width else RANK_DEFICIENT
    for variant, published in row.items():
        if variant in ("N", "M", "d"):
            continue
        if isinstance(published, str):
            refused = _refuses(lambda: frechet_distance(real, generated))
            checks.equal(f"{name} ({variant}): ours refuses them too", refused, True)
            continue
        if min(first, second) == 1:
            # Without a covariance, what these variants return is the distance of the means.
            ours = (real.mean - generated.mean).square().sum().item()
        else:
            ours = frechet_distance(real, generated).item()
        allowed = FLOAT64 if variant.startswith("float64") else tolerance
        checks.at_most(f"{name} ({variant})", abs(ours / published - 1), allowed)


@torch.no_grad()
def i3d(case: Case) -> Checks:
    """Compare the network's state, what becomes of every stored video, and how short a video may be."""
    checks, network = Checks(), I3D()
    _give_weights(checks, case.parameters, network)
    for index, entry in enumerate(case.parameters["videos"]):
        key, shape = f"fvd/{case.split}/video{index}", (1, entry["T"], 3, entry["H"], entry["W"])
        video = torch.from_numpy(generator(key).integers(0, 256, shape, dtype=np.uint8)).transpose(1, 2).contiguous()
        _compare_entry(checks, f"video {index}", entry, video, network)
        for name in case.arrays:
            if name.startswith(f"v{index}_"):
                _compare_array(checks, name, name.removeprefix(f"v{index}_"), case[name], video, network)
    for frames, published in case.parameters.get("min_frames", {}).items():
        _compare_length(checks, network, int(frames), published)
    return checks


def _give_weights(checks: Checks, parameters: dict[str, Any], network: I3D) -> None:
    state = network.state_dict()
    checks.equal("entries of the state", len(state), parameters["n_state"])
    for name, parameter in network.named_parameters():
        numbers = normal(name, tuple(parameter.shape))
        if numbers.ndim >= 2:
            parameter.copy_(numbers / math.sqrt(math.prod(numbers.shape[1:])))
        else:
            parameter.copy_(1 + 0.1 * numbers if name.endswith(".weight") else 0.1 * numbers)
    for name, published in parameters["checks"].items():
        checks.equal(f"{name} (shape)", list(state[name].shape), published["shape"])
        weights = state[name].double()
        error = abs(weights.sum().item() - published["sum"]) / weights.abs().sum().item()
        checks.at_most(f"{name} (sum)", error, WEIGHTS)


def _compare_entry(checks: Checks, name: str, entry: dict[str, Any], video: Tensor, network: I3D) -> None:
    for prefix, convention in MEASURED.items():
        square = to_square(video, CONVENTIONS[convention])
        if f"{prefix}_shape" in entry:
            checks.equal(f"{name} {prefix} (shape)", list(square.shape), entry[f"{prefix}_shape"])
        for statistic in ("mean", "std"):
            if f"{prefix}_{statistic}" in entry:
                error = abs(getattr(square, statistic)().item() - entry[f"{prefix}_{statistic}"])
                checks.at_most(f"{name} {prefix} ({statistic})", error, PIXELS)
    if "cm_uint8_roundtrip_changed" in entry:
        back = torch.from_numpy(to_frames(video[0].float() / 127.5 - 1)).permute(3, 0, 1, 2)
        changed = int((back != video[0]).sum())
        checks.equal(f"{name}: levels changed by quantisation", changed, entry["cm_uint8_roundtrip_changed"])
    squashed = preprocess(video, "videogpt_squash")
    if "extract_features_shape" in entry:
        shape = list(network.features(squashed).shape)
        checks.equal(f"{name} features (shape)", shape, entry["extract_features_shape"])
    if "endpoints" in entry:
        _compare_endpoints(checks, name, entry["endpoints"], network, squashed)


def _compare_endpoints(checks: Checks, name: str, published: dict[str, Any], network: I3D, pixels: Tensor) -> None:
    ours = dict(network.endpoints(pixels))
    checks.equal(f"{name} stages", list(ours), list(published))
    for stage in ours.keys() & published.keys():
        shape, mean, spread = published[stage]
        checks.equal(f"{name} {stage} (shape)", list(ours[stage].shape), shape)
        checks.at_most(f"{name} {stage} (mean)", abs(ours[stage].mean().item() - mean) / spread, LOGITS)
        checks.at_most(f"{name} {stage} (std)", abs(ours[stage].std().item() / spread - 1), LOGITS)


def _compare_array(checks: Checks, name: str, quantity: str, published: Tensor, video: Tensor, network: I3D) -> None:
    """Compare one stored array; every sample of it is thinned out evenly from the start."""
    pixels = re.fullmatch(r"(\w+)_pre_sample", quantity)
    logits = re.fullmatch(r"(\w+)_logits", quantity)
    if pixels:
        square = to_square(video, CONVENTIONS[PREPROCESSED[pixels[1]]])[0]
        step = square.shape[-1] // published.shape[-1]
        sample = square[:, : published.shape[1], ::step, ::step]
        checks.close(name, sample, published, maximum=PIXELS)
    elif logits:
        ours = network(preprocess(video, PREPROCESSED[logits[1]]))
        checks.close(name, ours / published.abs().max(), published / published.abs().max(), maximum=LOGITS)
    elif quantity == "extract_features":
        features = network.features(preprocess(video, "videogpt_squash")).flatten(1)
        sample = features[:, :: features.shape[1] // published.shape[1]]
        checks.close(name, sample / published.abs().max(), published / published.abs().max(), maximum=LOGITS)
    else:
        raise ValueError(f"stored array {name} is of no known kind")


def _compare_length(checks: Checks, network: I3D, frames: int, published: object) -> None:
    if published == "not run":
        return
    video = torch.zeros(1, 3, frames, IMAGE_SIZE, IMAGE_SIZE)
    if isinstance(published, str):
        checks.equal(f"{frames} frames are refused", _refuses(lambda: network(video)), True)
    else:
        checks.equal(f"logits of {frames} frames (shape)", list(network(video).shape), published)


def _refuses(compute: Callable[[], Tensor]) -> bool:
    try:
        compute()
    except ValueError:
        return True
    return False
