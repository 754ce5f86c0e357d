"""The denoiser's part of a training and of a sampling step, with the frozen towers' work done beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cami2v.attention.core import AttentionCore
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import DenseMask
from cami2v.batch import LatentBatch
from cami2v.camera_control.base import CameraCondition
from cami2v.camera_control.cami2v import CamI2VCondition
from cami2v.camera_control.pyramid import MaskPyramid
from cami2v.compilation import CompileMode, uses_graphs
from cami2v.denoiser import BranchDenoiser, JointBranchDenoiser
from cami2v.diffusion.guidance import Branch
from cami2v.draws import Draws
from cami2v.model import VideoDiffusion
from cami2v.training.engine import autocast
from launch.build import build_model
from launch.compose import compose_config
from tools.orbit_clip import orbit_batch

SIZE_OF = {"tiny": (64, 64), "dynamicrafter_256": (256, 256), "dynamicrafter_512": (320, 512)}
BRANCHES = (Branch.CONDITIONAL, Branch.UNCONDITIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denoising:
    """A denoiser under a camera method, and a clip that is encoded already."""

    model: VideoDiffusion
    """Without its frozen towers."""
    backbone: Callable[..., Tensor]
    """The model's, or that compiled."""
    clip: LatentBatch
    predict: BranchDenoiser
    """Knows the clip's conditions for sampling."""
    precision: torch.dtype | None
    trainable: str = "all"
    masks_written_out: bool = False
    joint: bool = True

    @classmethod
    def of(
        cls,
        backbone: str,
        camera: str,
        frames: int,
        device: torch.device,
        precision: torch.dtype | None,
        *,
        size: tuple[int, int] | None = None,
        overrides: Sequence[str] = (),
    ) -> Denoising:
        """Build a model with random weights and let its towers encode the orbit's clip, of the backbone's own size."""
        named = [f"backbone={backbone}", f"camera={camera}", f"data.frames={frames}"]
        model = build_model(compose_config("train", [*named, *overrides])).to(device).train()
        batch = orbit_batch(frames, size or SIZE_OF[backbone]).to(device)
        draws = Draws(batch.seeds, device=device)
        with torch.no_grad(), autocast(precision, device):
            clip = model.encode(batch, draws, condition_frame=torch.zeros_like(batch.seeds), drop=False)
            predict, _ = model.denoiser(batch, draws, joint=True)
        for name, child in list(model.named_children()):
            if any(child is tower for tower in model.frozen_towers()):
                setattr(model, name, nn.Identity())
        return cls(model=model, backbone=model.backbone, clip=clip, predict=predict, precision=precision)

    def compiled(self, backend: str, mode: CompileMode | None = None) -> Denoising:
        """Return the same with the denoiser compiled; the weights are shared."""
        backbone: Any = torch.compile(self.model.backbone, backend=backend, mode=mode, dynamic=False)
        if uses_graphs(backend, mode):
            backbone.overwrites_output = True
        predict = object.__new__(JointBranchDenoiser)
        predict.__dict__.update(self.predict.__dict__, backbone=backbone)
        return dataclasses.replace(self, backbone=backbone, predict=predict)

    @property
    def device(self) -> torch.device:
        """Return where it runs."""
        return self.clip.latents.device

    def training_step(self) -> None:
        """Encode the cameras, predict, and go back to the weights that train."""
        self.model.train()
        self.model.select_trainable("all" if self.trainable == "all" else "camera")
        with autocast(self.precision, self.device):
            draws = Draws(self.clip.seeds, device=self.device)
            noisy = self.model.add_noise(self.clip, draws)
            predicted = self.backbone(noisy.noisy, noisy.timesteps, self.clip.conditioning, self.condition(draws))
            loss = (predicted.float() - noisy.target).square().mean()
        loss.backward()
        self.model.zero_grad(set_to_none=True)

    @torch.no_grad()
    def sampling_step(self) -> None:
        """Predict with and without the conditions, under cameras that are encoded already."""
        self.model.eval()
        timesteps = torch.full_like(self.clip.seeds, 500)
        with autocast(self.precision, self.device):
            if self.joint and isinstance(self.predict, JointBranchDenoiser):
                self.predict.together(self.clip.latents, timesteps, BRANCHES)
            else:
                for branch in BRANCHES:
                    self.predict(self.clip.latents, timesteps, branch)

    def condition(self, draws: Draws) -> CameraCondition:
        """Encode the cameras."""
        condition = self.model.camera.encode(self.clip.cameras, condition_frame=self.clip.condition_frame, draws=draws)
        if not self.masks_written_out:
            return condition
        assert isinstance(condition, CamI2VCondition)
        levels = {level: DenseMask(allowed=mask.dense()) for level, mask in condition.masks.levels.items()}
        return dataclasses.replace(condition, masks=MaskPyramid(levels=levels))

    def operations(self, step: Callable[[], object]) -> float:
        """Count the floating-point operations of a step, of masked attention those of the pairs that see each other."""
        with _masked_attention_set_aside(self.model) as set_aside, FlopCounterMode(display=False) as counter:
            step()
        return counter.get_total_flops() + sum(set_aside)


@contextmanager
def _masked_attention_set_aside(model: VideoDiffusion) -> Iterator[list[float]]:
    """Do without masked attention, and list what it would have computed: kernels of ours no counter knows."""
    operations: list[float] = []
    visible: dict[int, int] = {}
    cores = [module for module in model.modules() if isinstance(module, AttentionCore) and module.masked]

    def stand_in(query: Tensor, key: Tensor, value: Tensor, *, mask: Any = None, always_visible: int = 0) -> Tensor:
        pairs = visible.setdefault(id(mask), _visible_pairs(mask)) + query.shape[1] * always_visible
        products = 14 if torch.is_grad_enabled() and query.requires_grad else 4
        operations.append(float(products * pairs * value.shape[-1]))
        return query + (key + value).mean(dim=1, keepdim=True)

    for core in cores:
        core.forward = stand_in  # type: ignore[method-assign]
    try:
        yield operations
    finally:
        for core in cores:
            del core.forward


@torch.no_grad()
def _visible_pairs(mask: Any) -> int:
    if isinstance(mask, DenseMask):
        return int(mask.allowed.count_nonzero())
    assert isinstance(mask, EpipolarBands)
    tokens = torch.arange(mask.grid.tokens, device=mask.fundamental.device).split(512)
    return sum(int(mask.rows(clip, some).count_nonzero()) for clip in range(mask.shape[0]) for some in tokens)
