"""What samplers call: the backbone under the conditions of each guidance branch, all encoded beforehand."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from cami2v.backbones.base import VideoBackbone
from cami2v.batch import Conditioning
from cami2v.camera_control.base import CameraCondition
from cami2v.compilation import new_iteration
from cami2v.diffusion.guidance import Branch

logger = logging.getLogger(__name__)

SHARED = (Branch.CONDITIONAL, Branch.UNCONDITIONAL)
"""The branches that keep the camera and therefore fit into one forward pass."""


class BranchDenoiser:
    """Evaluates one branch at a time: the least memory."""

    def __init__(
        self,
        *,
        backbone: VideoBackbone,
        conditioned: Conditioning,
        unconditioned: Conditioning,
        camera: CameraCondition,
    ) -> None:
        self.backbone = backbone
        self.conditioned = conditioned
        self.unconditioned = unconditioned
        self.camera = camera

    def __call__(
        self,
        noisy: Float[Tensor, "batch channels frames height width"],
        timesteps: Int64[Tensor, " batch"],
        branch: Branch,
    ) -> Float[Tensor, "batch channels frames height width"]:
        """Predict under the conditions of a branch."""
        conditioning = self.unconditioned if branch is Branch.UNCONDITIONAL else self.conditioned
        camera = None if branch is Branch.CONDITIONAL_WITHOUT_CAMERA else self.camera
        return self._predict(noisy, timesteps, conditioning, camera)

    def _predict(
        self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning, camera: CameraCondition | None
    ) -> Tensor:
        """Return what is the caller's to keep: guidance needs several branches at once, solvers remember steps."""
        new_iteration(self.backbone)
        predicted = self.backbone(noisy, timesteps, conditioning, camera)
        return predicted.clone() if self.backbone.overwrites_output else predicted


class JointBranchDenoiser(BranchDenoiser):
    """Evaluates the conditional and the unconditional branch in one forward pass: faster where memory allows.

    Both see the same camera condition. Its features are repeated once, before the first step; its attention masks are
    not: each half of the batch is attended under the one mask there is. Where a GPU has not the memory for it, the
    branches are evaluated one at a time from then on.
    """

    def __init__(
        self,
        *,
        backbone: VideoBackbone,
        conditioned: Conditioning,
        unconditioned: Conditioning,
        camera: CameraCondition,
    ) -> None:
        super().__init__(backbone=backbone, conditioned=conditioned, unconditioned=unconditioned, camera=camera)
        self._joined = _join(conditioned, unconditioned)
        self._camera_of_both = camera.repeated(len(SHARED))
        self._fits = True

    def together(
        self, noisy: Float[Tensor, "batch channels frames height width"], timesteps: Tensor, branches: Sequence[Branch]
    ) -> dict[Branch, Tensor]:
        """Predict under all branches; the one without camera, and a lone one, take a pass of their own."""
        outputs = self._both(noisy, timesteps) if self._fits and set(SHARED) <= set(branches) else {}
        for branch in branches:
            if branch not in outputs:
                outputs[branch] = self(noisy, timesteps, branch)
        return outputs

    def _both(
        self, noisy: Float[Tensor, "batch channels frames height width"], timesteps: Tensor
    ) -> dict[Branch, Tensor]:
        try:
            both = self._predict(noisy.repeat(2, 1, 1, 1, 1), timesteps.repeat(2), self._joined, self._camera_of_both)
        except torch.OutOfMemoryError:
            self._fits = False
        else:
            return dict(zip(SHARED, both.chunk(2), strict=True))
        # Out of the handler, which holds on to what the failed pass had allocated.
        torch.cuda.empty_cache()
        logger.warning("not enough memory for both guidance branches at once; they are evaluated one after the other")
        return {}


def _join(first: Conditioning, second: Conditioning) -> Conditioning:
    names = [field.name for field in dataclasses.fields(Conditioning)]
    return Conditioning(**{name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names})
