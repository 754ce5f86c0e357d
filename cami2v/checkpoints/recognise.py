"""What a weights file is: told from the names and shapes in it, nothing else is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cami2v.checkpoints.diagnosis import CAMERA, DEPTH, IMAGE_SCALE, camera_method
from cami2v.checkpoints.named_weights import NamedWeights, open_weights
from cami2v.checkpoints.released_names import has_dynamic_rescale
from cami2v.checkpoints.report import Role

EXPERIMENTS = {
    None: "dynamicrafter",
    "MotionCtrl": "motionctrl",
    "CameraCtrl": "cameractrl",
    "CamI2V or RealCam-I2V": "cami2v",
}
"""By what `camera_method` answers; RealCam-I2V's network is CamI2V's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A file's place among the released models."""

    weights: NamedWeights
    role: Role
    experiments: tuple[str, ...]
    """Names of experiments it may belong to, likeliest first; several where names cannot tell."""

    @property
    def ambiguity(self) -> str | None:
        """Say what the names leave open."""
        if len(self.experiments) < 2:
            return None
        return f"its names fit {' and '.join(self.experiments)} alike; where it came from decides"


def recognise(path: Path) -> Recognised:
    """Tell role and experiments of a weights file. Raises ValueError for a file that is none, or of another model."""
    weights = open_weights(path)
    names = set(weights.ours)
    if not names:
        first = next(iter(weights.archive.tensors))
        raise ValueError(
            f"{path}: none of its {len(weights.archive.tensors)} tensors (first: {first}) belongs to a model known here"
        )
    if all(name.startswith(DEPTH) for name in names):
        return Recognised(weights=weights, role="depth", experiments=("realcam_i2v_256", "realcam_i2v_512"))
    method = camera_method(names)
    trunk = any(not CAMERA.fullmatch(name) and name.startswith("first_stage.") for name in names)
    role: Role = ("base" if method is None else "full") if trunk else "delta"
    stem = EXPERIMENTS[method]
    stems = [stem]
    if stem == "cami2v":
        # Only the inference files of RealCam-I2V carry a depth network, and only RealCam-I2V was released as deltas.
        has_depth = any(name.startswith(DEPTH) for name in names)
        stems = ["realcam_i2v"] if has_depth else ["cami2v", "realcam_i2v"] if trunk else ["realcam_i2v", "cami2v"]
    sizes = _sizes(weights, trunk)
    known = [f"{each}_{size}" for each in stems for size in sizes]
    only_256 = ("motionctrl", "cameractrl")
    return Recognised(
        weights=weights,
        role=role,
        experiments=tuple(name for name in known if not (name.endswith("_512") and name.startswith(only_256))),
    )


def _sizes(weights: NamedWeights, trunk: bool) -> list[int]:
    """256 models have learned scales of image attention, 512 models a table of the dynamic rescale."""
    if any(name.endswith(IMAGE_SCALE) for name in weights.ours):
        return [256]
    rescale = has_dynamic_rescale(weights.released)
    if trunk or rescale:
        return [512]
    return [256, 512]
