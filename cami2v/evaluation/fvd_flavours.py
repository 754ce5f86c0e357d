"""The Frechet video distances of the literature: network, weights, and how frames are prepared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cami2v.evaluation.fvd_preprocessing import CONVENTIONS
from cami2v.evaluation.i3d import MIN_FRAMES, load_i3d
from cami2v.evaluation.video_detectors import ClassifierDetector, TorchScriptDetector, VideoDetector


@dataclass(frozen=True, slots=True, kw_only=True)
class Flavour:
    """One published distance. Numbers of different flavours cannot be compared."""

    name: str
    """Key under `evaluation.measures`."""
    label: str
    """Those of the published table's distances name their project, and only those."""
    as_in: str
    """Whose numbers it reproduces."""
    network: str
    resize: str
    weights: str
    """As `cami2v weights` calls them."""
    load: Callable[[Path], VideoDetector]


def _videogpt(preprocessing: str, weights: Path) -> VideoDetector:
    return ClassifierDetector(network=load_i3d(weights), preprocessing=preprocessing, min_frames=MIN_FRAMES)


def _styleganv(preprocessing: str, weights: Path) -> VideoDetector:
    network = TorchScriptDetector(path=weights)
    return ClassifierDetector(network=network, preprocessing=preprocessing, min_frames=MIN_FRAMES)


def _videomae(weights: Path) -> VideoDetector:
    # Imported here: transformers takes seconds.
    from cami2v.evaluation.videomae import load_videomae

    return load_videomae(weights)


_LOGITS = "I3D, Kinetics-400 logits"

FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        Flavour(
            name="fvd_videogpt",
            label="FVD VideoGPT",
            as_in="CamI2V's table",
            network=_LOGITS,
            resize=str(CONVENTIONS["videogpt_squash"]),
            weights="fvd_videogpt_i3d",
            load=partial(_videogpt, "videogpt_squash"),
        ),
        Flavour(
            name="fvd_videogpt_crop",
            label="FVD I3D, crop 224",
            as_in="common_metrics_on_video_quality, videogpt",
            network=_LOGITS,
            resize=str(CONVENTIONS["videogpt_crop"]),
            weights="fvd_videogpt_i3d",
            load=partial(_videogpt, "videogpt_crop"),
        ),
        Flavour(
            name="fvd_styleganv",
            label="FVD StyleGAN-V",
            as_in="CamI2V's table",
            network=f"{_LOGITS}, TorchScript",
            resize=str(CONVENTIONS["styleganv_128"]),
            weights="fvd_styleganv_i3d",
            load=partial(_styleganv, "styleganv_128"),
        ),
        Flavour(
            name="fvd_styleganv_224",
            label="FVD I3D TorchScript, crop 224",
            as_in="common_metrics_on_video_quality, styleganv",
            network=f"{_LOGITS}, TorchScript",
            resize=str(CONVENTIONS["styleganv_224"]),
            weights="fvd_styleganv_i3d",
            load=partial(_styleganv, "styleganv_224"),
        ),
        Flavour(
            name="fvd_content_debiased",
            label="content-debiased FVD",
            as_in="arXiv 2404.12391, package cd-fvd",
            network="VideoMAE V2 ViT-g, Something-Something v2",
            resize="squash 224x224",
            weights="fvd_videomae_v2_ssv2",
            load=_videomae,
        ),
    )
}


def find_flavour(name: str) -> Flavour:
    """Look a flavour up. Raises ValueError for an unknown name."""
    if name not in FLAVOURS:
        raise ValueError(f"FVD flavour {name!r} is unknown; choose one of {', '.join(FLAVOURS)}")
    return FLAVOURS[name]
