"""The videos of one batch, window by window: encode, denoise, decode."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.diffusion.edits import NoiseShaping, OverlapFrames, PasteConditionFrame, StepEdit
from cami2v.draws import Draws
from cami2v.inference.clips import joined_clips, window_of, windows
from cami2v.inference.decoding import decode
from cami2v.inference.placement import Placement, computing
from cami2v.inference.progress import Watch
from cami2v.inference.request import Precision
from cami2v.inference.sampling_plan import SamplingPlan
from cami2v.inference.scene import Scene, joined_scenes, noise_shaping
from cami2v.model import VideoDiffusion


class BatchSampling:
    """Makes the videos of one batch after a plan; `negative_captions` are those of its clips."""

    def __init__(
        self,
        *,
        model: VideoDiffusion,
        placement: Placement,
        precision: Precision,
        plan: SamplingPlan,
        negative_captions: Sequence[str],
        watch: Watch,
    ) -> None:
        self.model = model
        self.placement = placement
        self.precision: Precision = precision
        self.plan = plan
        self.negative_captions = negative_captions
        self.sampler = plan.sampler.build()
        self.watch = watch

    def video(
        self, clips: Sequence[ClipBatch], scenes: Sequence[Scene]
    ) -> Float[Tensor, "batch 3 frames height width"]:
        """Make the videos of clips, in [-1, 1]; `scenes` are theirs, or none."""
        plan, sampler = self.plan, self.sampler
        whole = joined_clips(clips).to(self.placement.device)
        pieces = windows(whole.video.shape[2], plan.window, plan.overlap)
        video: Tensor | None = None
        latents: Tensor | None = None
        for number, piece in enumerate(pieces):
            overlap: OverlapFrames | None = None
            image = None
            if latents is not None and video is not None:
                # The window starts on frames that exist: they stay, and the first of them is its image.
                known = pieces[number - 1].stop - piece.start
                scale = None if plan.compatibility == "published" else sampler.final_scale(self.model.schedule)
                overlap, image = OverlapFrames(known=latents[:, :, -known:], scale=scale), video[:, :, piece.start]
            scene = joined_scenes(scenes, slice(piece.start, piece.stop)) if scenes else None
            latents = self._denoise(window_of(whole, piece, image), overlap, scene, number)
            with torch.no_grad(), self.placement.stage("decode"):
                decoded = decode(
                    self.model.first_stage, latents, frames_at_once=plan.decode_frames, tile=plan.decode_tile
                )
            decoded = decoded.float().clamp(-1, 1)
            video = decoded if video is None else torch.cat([video[:, :, : piece.start], decoded], dim=2)
        assert video is not None
        return video

    @torch.no_grad()
    def _denoise(
        self,
        batch: ClipBatch,
        overlap: OverlapFrames | None,
        scene: tuple[Tensor, Tensor] | None,
        window: int,
    ) -> Float[Tensor, "batch channels frames height width"]:
        plan, device = self.plan, self.placement.device
        draws = Draws(batch.seeds, device=device)
        if window:
            draws = NamedDraws(draws, f"window{window}")
        frame = torch.full_like(batch.seeds, 0 if window else plan.condition_frame)
        with computing(self.precision, device):
            with self.placement.stage("encode"):
                predict, image_latents = self.model.denoiser(
                    batch,
                    draws,
                    condition_frame=frame,
                    negative_captions=self.negative_captions,
                    joint=plan.branches == "together",
                )
                shaping = None if scene is None else self._noise_shaping(scene, image_latents, frame, draws)
            edits = self._edits(image_latents, frame, overlap, shaping)
            with self.placement.stage("denoise"):
                return self.sampler.sample(
                    predict,
                    schedule=self.model.schedule,
                    prediction=self.model.prediction,
                    shape=tuple(image_latents.shape[1:]),
                    draws=draws,
                    edits=edits,
                    on_step=self.watch.step_done,
                )

    def _edits(
        self, image_latents: Tensor, frame: Tensor, overlap: OverlapFrames | None, shaping: NoiseShaping | None
    ) -> list[StepEdit]:
        """Put the edits in order: later ones have the last word."""
        published = self.plan.compatibility == "published"
        paste = None
        if self.plan.paste_image:
            scale = None if published else 1.0
            paste = PasteConditionFrame(known=image_latents.float(), condition_frame=frame, scale=scale)
        # As published the scene also covers frames that an earlier window made; else those stay as they are.
        in_order = (paste, overlap, shaping) if published else (paste, shaping, overlap)
        return [edit for edit in in_order if edit is not None]

    def _noise_shaping(
        self, scene: tuple[Tensor, Tensor], image_latents: Tensor, frame: Tensor, draws: Draws
    ) -> NoiseShaping:
        video, covered = (each.to(self.placement.device) for each in scene)
        assert self.plan.noise_shaping is not None
        return noise_shaping(
            self.model.first_stage.encode(video, NamedDraws(draws, "scene")),
            covered,
            image_latents,
            rule=self.plan.noise_shaping,
            condition_frame=frame,
            compatibility=self.plan.compatibility,
        )


class NamedDraws(Draws):
    """The draws of a later window or of a scene: other numbers for the same seeds."""

    def __init__(self, draws: Draws, name: str) -> None:
        super().__init__(torch.tensor(draws.seeds), device=draws.device)
        self.inner = draws
        self.name = name

    def _generators(self, purpose: str) -> list[torch.Generator]:
        return self.inner._generators(f"{self.name}/{purpose}")
