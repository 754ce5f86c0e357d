"""VideoDiffusion: encode -> condition -> add noise -> predict -> loss. Read this file first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from einops import repeat
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from cami2v.backbones.base import VideoBackbone
from cami2v.batch import (
    ClipBatch,
    Conditioning,
    ConditionTokens,
    EncodedClipBatch,
    LatentBatch,
    NoisyLatents,
    StepOutput,
    TrainingBatch,
)
from cami2v.camera_control.base import CameraControl
from cami2v.condition_frame import ConditionFrame
from cami2v.denoiser import BranchDenoiser, JointBranchDenoiser
from cami2v.diffusion.condition_drop import drop_masks
from cami2v.diffusion.objective import TrainingObjective, mean_squared_error
from cami2v.diffusion.prediction import Prediction, check_prediction, diffuse
from cami2v.diffusion.sampler import Sampler
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.draws import Draws
from cami2v.encoders.base import DepthEstimator, FirstStage, ImageEncoder, TextEncoder

FrameRate = Literal["stride", "fps"]


class VideoDiffusion(nn.Module):
    """Camera-controlled image-to-video latent diffusion (CamI2V, arXiv 2410.15957, on DynamiCrafter).

    `forward` is one training step, so that DDP and DeepSpeed wrap the module as it is. All randomness comes from the
    samples' own seeds (`Draws`): world size and batch layout never change a number.
    """

    def __init__(
        self,
        *,
        first_stage: FirstStage,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder,
        image_projector: nn.Module,
        camera: CameraControl,
        backbone: VideoBackbone,
        schedule: NoiseSchedule,
        prediction: Prediction,
        frame_rate: FrameRate,
        condition_drop_probability: float,
        random_condition_frame: bool,
        depth: DepthEstimator | None = None,
        objective: TrainingObjective | None = None,
    ) -> None:
        super().__init__()
        check_prediction(prediction, schedule)
        self.first_stage = first_stage
        self.text_encoder = text_encoder
        self.image_encoder = image_encoder
        self.image_projector = image_projector
        self.camera = camera
        self.backbone = backbone
        self.schedule = schedule
        self.prediction = prediction
        self.frame_rate: FrameRate = frame_rate
        self.condition_drop_probability = condition_drop_probability
        self.random_condition_frame = random_condition_frame
        self.depth = depth
        self.objective = objective or mean_squared_error(schedule.timesteps)

    def forward(self, batch: TrainingBatch) -> StepOutput:
        """Compute the denoising loss of a batch, by default the mean squared error without weighting by timestep."""
        draws = Draws(batch.seeds, device=batch.seeds.device)
        frame = ConditionFrame(random=self.random_condition_frame).draw(draws, batch.frame_indices.shape[1])
        if isinstance(batch, EncodedClipBatch):
            clips = self.take_encoded(batch, draws, condition_frame=frame)
        else:
            clips = self.encode(batch, draws, condition_frame=frame, drop=True)
        condition = self.camera.encode(clips.cameras, condition_frame=clips.condition_frame, draws=draws)
        noisy = self.add_noise(clips, draws)
        predicted = self.backbone(noisy.noisy, noisy.timesteps, clips.conditioning, condition)
        per_sample = self.objective.per_sample(predicted, noisy.target)
        loss = self.objective.combine(per_sample, noisy.timesteps, schedule=self.schedule, prediction=self.prediction)
        return StepOutput(loss=loss, loss_per_sample=per_sample, timesteps=noisy.timesteps)

    def encode(
        self, batch: ClipBatch, draws: Draws, *, condition_frame: Int64[Tensor, " batch"], drop: bool
    ) -> LatentBatch:
        """Encode clips and their conditions; `drop` blanks captions and images at random, for guidance."""
        latents = self.first_stage.encode(batch.video, draws)
        rows = torch.arange(len(batch.clip_ids), device=batch.video.device)
        image = batch.video[rows, :, condition_frame]
        captions = list(batch.captions)
        if drop:
            drop_text, drop_image = drop_masks(draws.uniform("condition_drop"), self.condition_drop_probability)
            captions = ["" if blank else text for text, blank in zip(captions, drop_text.tolist(), strict=True)]
            image = image * ~drop_image[:, None, None, None]
        image_latents = repeat(latents[rows, :, condition_frame], "b c h w -> b c t h w", t=latents.shape[2])
        return LatentBatch(
            seeds=batch.seeds,
            latents=latents,
            conditioning=self._conditioning(captions, image, image_latents, batch),
            cameras=batch.cameras,
            condition_frame=condition_frame,
        )

    def take_encoded(
        self, batch: EncodedClipBatch, draws: Draws, *, condition_frame: Int64[Tensor, " batch"]
    ) -> LatentBatch:
        """Do what `encode(drop=True)` does, with what a cache holds in place of the frozen towers.

        Raises ValueError for a batch whose image is not that of `condition_frame`.
        """
        if not torch.equal(batch.condition_frame, condition_frame):
            raise ValueError(
                f"clips {', '.join(batch.clip_ids)}: conditioned on frames {batch.condition_frame.tolist()}, but "
                f"diffusion.random_condition_frame={self.random_condition_frame} draws {condition_frame.tolist()}; "
                "give the loader the model's ConditionFrame"
            )
        latents = self.first_stage.sample(batch.moments, draws)
        drop_text, drop_image = drop_masks(draws.uniform("condition_drop"), self.condition_drop_probability)
        text_tokens = torch.where(drop_text[:, None, None], batch.blank_text_tokens, batch.text_tokens).float()
        given = batch.condition_image
        if isinstance(given, ConditionTokens):
            image = torch.where(drop_image[:, None, None], given.blank, given.tokens).float()
        else:
            image = self.image_encoder.encode(given.images * ~drop_image[:, None, None, None])
        rows = torch.arange(len(batch.clip_ids), device=latents.device)
        image_latents = repeat(latents[rows, :, condition_frame], "b c h w -> b c t h w", t=latents.shape[2])
        return LatentBatch(
            seeds=batch.seeds,
            latents=latents,
            conditioning=self._join_conditions(text_tokens, image, image_latents, batch),
            cameras=batch.cameras,
            condition_frame=condition_frame,
        )

    def add_noise(self, clips: LatentBatch, draws: Draws) -> NoisyLatents:
        """Diffuse each clip's latents to a timestep of its own."""
        timesteps = draws.integers("timestep", self.schedule.timesteps)
        noise = self.objective.draw_noise(draws, tuple(clips.latents.shape[1:])).to(clips.latents.dtype)
        return diffuse(clips.latents, noise, timesteps, schedule=self.schedule, prediction=self.prediction)

    @torch.no_grad()
    def generate(self, batch: ClipBatch, sampler: Sampler) -> Float32[Tensor, "batch 3 frames height width"]:
        """Animate the first frame of each clip along its cameras; later frames of `batch.video` are never seen.

        Values are in [-1, 1].
        """
        draws = Draws(batch.seeds, device=batch.video.device)
        predict, image_latents = self.denoiser(batch, draws)
        shape = tuple(image_latents.shape[1:])
        latents = sampler.sample(predict, schedule=self.schedule, prediction=self.prediction, shape=shape, draws=draws)
        return self.first_stage.decode(latents).float().clamp(-1, 1)

    @torch.no_grad()
    def denoiser(
        self,
        batch: ClipBatch,
        draws: Draws,
        *,
        condition_frame: Int64[Tensor, " batch"] | None = None,
        negative_captions: Sequence[str] | None = None,
        joint: bool = False,
    ) -> tuple[BranchDenoiser, Float[Tensor, "batch channels frames height width"]]:
        """Return what samplers call, and the latent of each clip's conditioning frame, repeated over its frames.

        That frame (the first without `condition_frame`), captions and cameras are encoded here, once for all denoising
        steps and guidance branches. `negative_captions` take the place of the unconditional branch's empty ones;
        `joint` evaluates the branches with camera in one forward pass.
        """
        frame = torch.zeros_like(batch.seeds) if condition_frame is None else condition_frame
        negative = [""] * len(batch.captions) if negative_captions is None else list(negative_captions)
        conditioned, unconditioned = self._sampling_conditions(batch, draws, frame, negative)
        condition = self.camera.encode(batch.cameras, condition_frame=frame, draws=draws)
        kind = JointBranchDenoiser if joint else BranchDenoiser
        predict = kind(backbone=self.backbone, conditioned=conditioned, unconditioned=unconditioned, camera=condition)
        return predict, conditioned.image_latents

    def select_trainable(self, policy: Literal["camera", "all"] | Sequence[str]) -> list[str]:
        """Set `requires_grad` and return the trainable names.

        `camera`: the camera method's own parameters and those its recipe trains as well; `all`: the denoiser with its
        camera control and image projector, never the frozen towers; else regular expressions over parameter names. The
        depth network has no part in the loss and never trains.
        """
        patterns = {
            "camera": [r"camera\..*", r"backbone\..*\.camera\..*", r"objective\..*", *self.camera.also_trains],
            "all": [r"camera\..*", r"backbone\..*", r"image_projector\..*", r"objective\..*"],
        }.get(policy if isinstance(policy, str) else "", [policy] if isinstance(policy, str) else list(policy))
        names = []
        for name, parameter in self.named_parameters():
            matches = any(re.fullmatch(pattern, name) for pattern in patterns)
            parameter.requires_grad_(matches and not name.startswith("depth."))
            if parameter.requires_grad:
                names.append(name)
        if not names:
            raise ValueError(
                f"trainer.trainable: {policy!r} matches none of the model's parameters; use camera, all, or regular "
                "expressions over names such as 'backbone\\..*\\.camera\\..*'"
            )
        return names

    def train(self, mode: bool = True) -> VideoDiffusion:
        """Set training mode; the frozen towers always stay in evaluation mode."""
        super().train(mode)
        for tower in self.frozen_towers():
            tower.eval()
        return self

    def frozen_towers(self) -> Iterator[nn.Module]:
        """Yield the encoders no policy trains by default: first stage, text, image, depth where there is one."""
        yield from (self.first_stage, self.text_encoder, self.image_encoder)
        if self.depth is not None:
            yield self.depth

    def _sampling_conditions(
        self, batch: ClipBatch, draws: Draws, condition_frame: Int64[Tensor, " batch"], negative: list[str]
    ) -> tuple[Conditioning, Conditioning]:
        """Encode the conditioning frame only, with its caption, and with the negative one and no image embedding."""
        image = batch.video[torch.arange(len(batch.clip_ids), device=batch.video.device), :, condition_frame]
        latent = self.first_stage.encode(image[:, :, None], draws)
        frames = batch.video.shape[2]
        image_latents = repeat(latent, "b c 1 h w -> b c t h w", t=frames)
        conditioned = self._conditioning(list(batch.captions), image, image_latents, batch)
        unconditioned = self._conditioning(negative, torch.zeros_like(image), image_latents, batch)
        return conditioned, unconditioned

    def _conditioning(
        self, captions: list[str], image: Tensor, image_latents: Tensor, batch: ClipBatch
    ) -> Conditioning:
        text_tokens, image_features = self.text_encoder.encode(captions), self.image_encoder.encode(image)
        return self._join_conditions(text_tokens, image_features, image_latents, batch)

    def _join_conditions(
        self, text_tokens: Tensor, image_features: Tensor, image_latents: Tensor, batch: TrainingBatch
    ) -> Conditioning:
        # The published 512 models were told whole frames per second.
        rate = batch.frame_stride if self.frame_rate == "stride" else batch.frames_per_second.floor()
        return Conditioning(
            image_latents=image_latents,
            text_tokens=text_tokens,
            image_tokens=self.image_projector(image_features, image_latents.shape[2]),
            frame_rate=rate.float(),
        )
