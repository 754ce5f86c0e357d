"""Load released weights: strict, key by key, one tensor in memory at a time.

Everything is judged by names and shapes before a single tensor is read. Several files are a base, a delta that wins
over it, and a depth network; only the camera modules may be missing, and only where training starts from a base.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from cami2v.checkpoints.diagnosis import CAMERA, DEPTH, diagnose, refusal
from cami2v.checkpoints.fingerprint import fingerprint
from cami2v.checkpoints.named_weights import NamedWeights, open_weights
from cami2v.checkpoints.released_names import released_names
from cami2v.checkpoints.report import LoadedFile, LoadReport, Match, Mismatch, RefusedWeightsError, Role
from cami2v.model import VideoDiffusion


def load_released(
    files: Sequence[Path], model: VideoDiffusion, *, camera_may_be_missing: bool = False, hashes: bool = True
) -> LoadReport:
    """Copy released weights into a model and report on every name.

    `files` are one whole checkpoint, or base, delta and depth network in this order. Raises RefusedWeightsError (a
    ValueError) for whatever `match_released` raises for, with the model untouched.
    """
    weights = [open_weights(path) for path in files]
    report = _checked(weights, model, camera_may_be_missing)
    by_path = {opened.path: opened for opened in weights}
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, match in report.matched.items():
            parameters[name].copy_(by_path[match.file].read(name))
    for opened in weights:
        _check_trained_base(opened, model)
    if not hashes:
        return report
    hashed = tuple(dataclasses.replace(file, sha256=by_path[file.path].archive.sha256()) for file in report.files)
    return dataclasses.replace(report, files=hashed)


def match_released(files: Sequence[Path], model: VideoDiffusion, *, camera_may_be_missing: bool = False) -> LoadReport:
    """Compare names and shapes only; the model may be on the meta device.

    Raises RefusedWeightsError for unexpected names, other shapes, missing names (but the camera's, if they may be
    missing and no file holds any of them), a delta whose camera weights do not all reach the model, a base that can be
    told to be another one, and files in the wrong order.
    """
    return _checked([open_weights(path) for path in files], model, camera_may_be_missing)


def _checked(weights: Sequence[NamedWeights], model: VideoDiffusion, camera_may_be_missing: bool) -> LoadReport:
    report = _compare(weights, model)
    camera_held = any(CAMERA.fullmatch(name) for opened in weights for name in opened.ours)
    new_camera = camera_may_be_missing and not camera_held
    accepted = {name for name in report.missing if new_camera and CAMERA.fullmatch(name)}
    wrong = refusal(report, weights, model, accepted)
    if wrong:
        advice = diagnose(report, weights, model, accepted)
        raise RefusedWeightsError(f"{wrong}; {advice}" if advice else wrong, report)
    return report


def _compare(weights: Sequence[NamedWeights], model: VideoDiffusion) -> LoadReport:
    wanted = dict(model.named_parameters())
    report = LoadReport(files=tuple(_loaded_file(opened, weights, model) for opened in weights))
    for opened in weights:
        report.unused.update(opened.unused)
        report.unused.update({n: f"{kind}, no tensor" for n, kind in opened.archive.others.items()})
        report.unexpected.update(dict.fromkeys(opened.unknown, opened.path))
        for name, stored in opened.ours.items():
            if name not in wanted:
                _not_wanted(report, opened, name, wanted)
                continue
            if name in report.matched:
                report.replaced[name] = report.matched.pop(name).file
            report.mismatched.pop(name, None)
            shape, dtype = opened.shape(name), opened.dtype(name)
            needed = wanted[name]
            if shape != tuple(needed.shape) or dtype.is_floating_point != needed.is_floating_point():
                report.mismatched[name] = Mismatch(
                    stored=stored, found=_described(shape, dtype), needed=_described(tuple(needed.shape), needed.dtype)
                )
            else:
                report.matched[name] = Match(
                    file=opened.path, stored=stored, shape=shape, dtype=dtype, becomes=needed.dtype
                )
    absent = [name for name in wanted if name not in report.matched and name not in report.mismatched]
    released = _released(list(wanted)) if absent else {}
    report.missing.update({name: released.get(name, name) for name in absent})
    return report


def _not_wanted(report: LoadReport, opened: NamedWeights, name: str, wanted: dict[str, torch.nn.Parameter]) -> None:
    stored = opened.ours[name]
    if name.startswith(DEPTH) and not any(other.startswith(DEPTH) for other in wanted):
        report.unused[stored] = "depth network, and this model has none"
    else:
        report.unexpected[stored] = opened.path


def _loaded_file(opened: NamedWeights, weights: Sequence[NamedWeights], model: VideoDiffusion) -> LoadedFile:
    has_camera = any(CAMERA.fullmatch(name) for name in opened.ours)
    role: Role = "delta"
    if opened.ours and all(name.startswith(DEPTH) for name in opened.ours):
        role = "depth"
    elif opened is weights[0]:
        wants_camera = any(CAMERA.fullmatch(name) for name, _ in model.named_parameters())
        role = "full" if has_camera or not wants_camera else "base"
    return LoadedFile(path=opened.path, role=role, layout=opened.archive.layout, tensors=len(opened.archive.tensors))


def _released(ours: Sequence[str]) -> dict[str, str]:
    try:
        return released_names(ours)
    except ValueError:
        # Of a model that was never released; its own names then serve in messages.
        return {}


def _check_trained_base(opened: NamedWeights, model: VideoDiffusion) -> None:
    """Hold weights that `cami2v train` wrote to the base they were trained on."""
    expected = opened.archive.metadata.get("base_fingerprint")
    if expected is not None and fingerprint(model, opened.ours.keys()) != expected:
        raise ValueError(
            f"{opened.path}: was trained on another base than the files before it; give the base of its run, as "
            "init_from in the run's config.yaml names it"
        )


def _described(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"shape {shape}" if dtype.is_floating_point else f"shape {shape} of {str(dtype).removeprefix('torch.')}"
