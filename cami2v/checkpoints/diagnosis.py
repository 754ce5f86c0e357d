"""Why weights do not fit a model, in one line: the names, and the likeliest mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

import torch

from cami2v.checkpoints.named_weights import NamedWeights
from cami2v.checkpoints.released_names import has_dynamic_rescale
from cami2v.checkpoints.report import LoadReport
from cami2v.model import VideoDiffusion

CAMERA = re.compile(r"(camera|backbone\..*\.camera)\..*")
"""Parameters that a camera method adds to a model."""

DEPTH = "depth."
IMAGE_SCALE = ".image_scale"
"""A parameter of the 256 models only: 16 scalars."""


def refusal(
    report: LoadReport, weights: Sequence[NamedWeights], model: VideoDiffusion, accepted: Collection[str]
) -> str | None:
    """Say what is wrong, naming the first key of each kind; None where everything fits."""
    missing = [
        f"{name} (here {ours})" if name != ours else name
        for ours, name in report.missing.items()
        if ours not in accepted
    ]
    wrong = [(m.stored, m.found, m.needed) for m in report.mismatched.values()]
    parts = [
        *_first("unexpected", list(report.unexpected)),
        *_first("missing", missing),
        *_first(
            "wrong shape:", [f"{stored} has {found}, this model's has {needed}" for stored, found, needed in wrong]
        ),
    ]
    paths = ", ".join(str(opened.path) for opened in weights)
    if parts:
        return f"{paths}: not the weights of this model: {'; '.join(parts)}"
    return (
        _idle_file(weights, model)
        or _wrong_order(weights, model)
        or _wrong_schedule(weights, model)
        or _partial_delta(report, weights, model)
    )


def diagnose(
    report: LoadReport, weights: Sequence[NamedWeights], model: VideoDiffusion, accepted: Collection[str]
) -> str:
    """Name the likeliest mistake; empty where none stands out."""
    held = {name for opened in weights for name in opened.ours}
    wanted = {name for name, _ in model.named_parameters()}
    missing = [name for name in report.missing if name not in accepted]
    theirs, ours = camera_method(held), camera_method(wanted)
    trunk = {name for name in wanted if not CAMERA.fullmatch(name) and not name.startswith(DEPTH)}
    if len(trunk & held) < len(trunk) / 2:
        lacking = _lacking_parts(trunk, held)
        return f"without {lacking} this looks like a delta: give its base before it (<base>,<delta>)"
    if theirs != ours and theirs is not None:
        expected = f"this model has {ours}'s" if ours else "this model has none"
        return f"it holds {theirs}'s camera modules, {expected}; choose the experiment of these weights"
    if theirs is None and any(CAMERA.fullmatch(name) for name in missing):
        return (
            "it holds no camera weights, so it is a base: add the delta (<base>,<delta>), or train from it with "
            "init_from=<base>"
        )
    theirs_scaled, ours_scaled = (any(name.endswith(IMAGE_SCALE) for name in names) for names in (held, wanted))
    if theirs_scaled != ours_scaled:
        return (
            f"the base is DynamiCrafter's {_size(theirs_scaled)} model ({'with' if theirs_scaled else 'without'} the "
            f"learned scales of image attention), this model is a {_size(ours_scaled)} one"
        )
    if any(CAMERA.fullmatch(name) for name in missing):
        return "its camera weights are incomplete, and a model with part of them is not the published one"
    if missing and all(name.startswith(DEPTH) for name in missing):
        return "give the Depth Anything file last (<base>,<delta>,<depth>), or choose depth=none"
    lacking = _lacking_parts(trunk, held)
    if lacking:
        return f"it holds nothing of {lacking}: only part of a checkpoint"
    return _similar_names(report)


def camera_method(names: Iterable[str]) -> str | None:
    """Tell the method from a model's parameter names; None where there are no camera modules."""
    adapters = {match[1] for match in (re.search(r"\.camera\.([^.]+)\.", name) for name in names) if match}
    if not adapters and not any(CAMERA.fullmatch(name) for name in names):
        return None
    if adapters & {"pluecker_projection", "epipolar"}:
        return "CamI2V or RealCam-I2V"
    return "CameraCtrl" if any(name.startswith("camera.pose_encoder.") for name in names) else "MotionCtrl"


def _size(is_256: bool) -> str:
    return "256" if is_256 else "512"


def _first(what: str, names: Sequence[str]) -> list[str]:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return [f"{what} {names[0]}{more}"] if names else []


def _idle_file(weights: Sequence[NamedWeights], model: VideoDiffusion) -> str | None:
    wanted = {name for name, _ in model.named_parameters()}
    for opened in weights:
        if not wanted & opened.ours.keys():
            names = list(opened.archive.tensors)
            return (
                f"{opened.path}: none of its {len(names)} tensors (first: {names[0]}) is part of this model; leave it "
                "out, or choose the experiment that has what it holds"
            )
    return None


def _wrong_order(weights: Sequence[NamedWeights], model: VideoDiffusion) -> str | None:
    """Refuse a delta given as base: its trained weights would give way to the base's."""
    if len(weights) == 1:
        return None
    trunk = [n for n, _ in model.named_parameters() if not CAMERA.fullmatch(n) and not n.startswith(DEPTH)]
    lacking = [name for name in trunk if name not in weights[0].ours]
    if not lacking:
        return None
    return (
        f"{weights[0].path}: is no base, {_first('it lacks', lacking)[0]}; the base comes first: "
        f"<base>,<delta>[,<depth network>]"
    )


def _wrong_schedule(weights: Sequence[NamedWeights], model: VideoDiffusion) -> str | None:
    """Compare the presence of the dynamic rescale's table, which 512 models have, with the model's schedule."""
    last = torch.tensor([model.schedule.timesteps - 1])
    here = bool(model.schedule.latent_scale(last, 1) != 1)
    for opened in weights:
        there = has_dynamic_rescale(opened.released)
        if there is not None and there != here:
            return (
                f"{opened.path}: was made for latents {'with' if there else 'without'} dynamic rescale "
                f"({'scale table present' if there else 'schedule tables without the scale table'}), this model's "
                f"schedule works {'with' if here else 'without'} (diffusion.schedule.dynamic_rescale_base): "
                f"{_size(not there)} weights in a {_size(not here)} model"
            )
    return None


def _partial_delta(report: LoadReport, weights: Sequence[NamedWeights], model: VideoDiffusion) -> str | None:
    """Refuse a delta that lacks backbone weights which its method trains: the base's would be used unnoticed."""
    deltas = [opened for opened in weights[1:] if any(CAMERA.fullmatch(name) for name in opened.ours)]
    if not deltas:
        return None
    trained = [n for n, _ in model.named_parameters() if any(re.fullmatch(p, n) for p in model.camera.also_trains)]
    lacking = [report.matched[name].stored for name in trained if report.matched[name].file == weights[0].path]
    if not lacking:
        return None
    return (
        f"{deltas[0].path}: {_first('lacks', lacking)[0]}, which its method trains beside the camera modules; the "
        "delta is incomplete"
    )


def _lacking_parts(trunk: Collection[str], held: Collection[str]) -> str:
    parts = dict.fromkeys(name.split(".")[0] for name in trunk)
    there = {name.split(".")[0] for name in held}
    return ", ".join(part for part in parts if part not in there)


def _similar_names(report: LoadReport) -> str:
    """Point at a renamed key."""
    if not report.unexpected or not report.missing or len(report.unexpected) > 16:
        return ""
    name = next(iter(report.unexpected))
    close = difflib.get_close_matches(name, list(report.missing.values()), n=1, cutoff=0.8)
    return f"{name} may be {close[0]}, renamed" if close else ""
