"""One way from an image to a video, for Python, the command line and the app: `Pipeline` (docs/pipeline.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.camera_control.liveness import GuardSettings, check_camera
from cami2v.diffusion.edits import OverlapFrames, StepEdit
from cami2v.diffusion.sampler import Sampler
from cami2v.draws import Draws
from cami2v.inference.clip_video import to_frames
from cami2v.inference.clips import joined_clips, window_of, windows
from cami2v.inference.decoding import decode
from cami2v.inference.exported import is_exported, load_exported
from cami2v.inference.image_clip import image_clip
from cami2v.inference.placement import Placement, computing, set_precision
from cami2v.inference.request import Precision, Request, SamplerSettings
from cami2v.inference.settings import (
    ModelFacts,
    Picture,
    VideoSettings,
    open_picture,
    picture_sha256,
    requests_for,
)
from cami2v.inference.source import PipelineSource
from cami2v.signature import build_settings

SOURCES = "cami2v.model_sources"
"""Entry points that load what is not an exported folder: (path, **keywords) -> PipelineSource."""


class SamplingCancelledError(Exception):
    """The caller asked to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a call is; a step is one denoising step of one batch."""

    step: int
    steps: int
    seconds: float

    @property
    def seconds_left(self) -> float:
        """Return the time left at the speed so far."""
        return self.seconds / self.step * (self.steps - self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A video and everything needed to make it again."""

    frames: UInt8[np.ndarray, "frames height width 3"]
    request: Request
    picture: Picture
    """The image as it was given."""


OnProgress = Callable[[Progress], None]


class Pipeline:
    """A loaded model that animates images.

    Args:
        source: model, sampler and what they are.
        device: None takes CUDA where there is one.
        precision: of everything but the first stage. fp32 is what the published numbers were checked in.
        offload: keep parts that a stage of sampling does not need in host memory.
        sampler: takes the place of the model's own, for calls that do not say otherwise.
    """

    def __init__(
        self,
        source: PipelineSource,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        offload: bool = False,
        sampler: SamplerSettings | None = None,
    ) -> None:
        self.source = source
        self.sampler = SamplerSettings.of(source.sampler) if sampler is None else sampler
        self.model = source.model.eval()
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.precision: Precision = precision
        set_precision(self.model, precision)
        self.placement = Placement(self.model, device=self.device, offload=offload)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        offload: bool = False,
        **source: Any,
    ) -> Pipeline:
        """Load an exported folder, a run folder of `cami2v train`, or released files.

        Released files do not know their model: `experiment="cami2v_256"`. Of a run: `weights="ema"`, `base=<file>`; see
        docs/pipeline.md for all. Raises ValueError in one line for what does not exist or does not fit.
        """
        if isinstance(path, (str, Path)) and is_exported(Path(path).expanduser()):
            if source:
                raise ValueError(f"{path}: an exported folder is complete; leave out {', '.join(source)}")
            loaded = load_exported(Path(path).expanduser())
        else:
            loaded = _load_elsewhere(path, source)
        return cls(loaded, device=device, precision=precision, offload=offload)

    def __call__(
        self,
        image: Any,
        *,
        batch_size: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Callable[[], bool] | None = None,
        **settings: Any,
    ) -> list[Generated]:
        """Animate an image, or a list of images; the settings are those of `VideoSettings`.

        Lists make one video for each item: `pipeline("room.png", seed=[0, 1, 2])`. `batch_size` videos are made at once
        (None: all). `cancel` is asked after every denoising step; if it says so, SamplingCancelledError is raised.
        Raises ValueError in one line for an unknown or impossible setting, before anything is sampled.
        """
        images = [open_picture(each) for each in (image if isinstance(image, (list, tuple)) else [image])]
        requests = self.requests(images, **settings)
        pictures = [images[row % len(images)][1] for row in range(len(requests))]
        return self.generate(requests, pictures, batch_size=batch_size, on_progress=on_progress, cancel=cancel)

    def requests(self, images: Sequence[tuple[str, Picture]], **settings: Any) -> list[Request]:
        """Write a call down without making anything; `images` as `open_picture` gives them."""
        chosen = build_settings(VideoSettings, settings, "pipeline")
        return requests_for(list(images), chosen, self.facts())

    def facts(self) -> ModelFacts:
        """Return what requests depend on."""
        backbone, first_stage = self.model.backbone, self.model.first_stage
        versions = {package: version(package) for package in ("torch", "diffusers")}
        constant = {"precision": self.precision, "model": self.source.identity, "versions": versions}
        return ModelFacts(
            defaults=self.source.defaults,
            sampler=self.sampler,
            multiple=first_stage.downsample * backbone.smallest_multiple,
            ends_with_image=backbone.ends_with_image,
            constant=constant,
        )

    def generate(
        self,
        requests: Sequence[Request],
        pictures: Sequence[Picture],
        *,
        batch_size: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> list[Generated]:
        """Make what requests describe, by this model whatever they say of theirs; also what repeats a video.

        Raises ValueError where a picture is not the one of its request.
        """
        for request, picture in zip(requests, pictures, strict=True):
            if picture_sha256(picture) != request.image_sha256:
                raise ValueError(
                    f"image {request.image or 'given as pixels'}: its pixels are not those of the request; the file "
                    "was changed, or it is another one"
                )
        size = batch_size or len(requests)
        batches = [range(start, min(start + size, len(requests))) for start in range(0, len(requests), size)]
        watch = _Watch(
            steps=sum(self.steps(requests[batch.start]) for batch in batches), on_progress=on_progress, cancel=cancel
        )
        made: list[Generated] = []
        for batch in batches:
            some, theirs = [requests[i] for i in batch], [pictures[i] for i in batch]
            videos = self._make(some, theirs, watch)
            made += [
                Generated(frames=to_frames(video), request=request, picture=picture)
                for video, request, picture in zip(videos, some, theirs, strict=True)
            ]
        return made

    def clip(self, request: Request, picture: Picture) -> ClipBatch:
        """Return what the model is given: the image and the cameras, resized and cropped."""
        return image_clip(
            picture,
            request.path(),
            caption=request.caption,
            resolution=(request.height, request.width),
            portrait="crop",
            field_of_view_degrees=request.field_of_view_degrees,
            frame_stride=request.frame_stride,
            frames_per_second=request.told_frames_per_second,
            seed=request.seed,
            compatibility=request.compatibility,
        )

    def check_camera(self, request: Request, picture: Picture, *, guards: GuardSettings, source: str) -> None:
        """Ask whether the trajectory changes the prediction (docs/camera-alive.md), in the stages' own places."""
        clip = self.clip(request, picture).to(self.device)
        stages = (self.placement.stage("encode"), self.placement.stage("denoise"))
        with stages[0], stages[1], computing(self.precision, self.device):
            check_camera(self.model, clip, guards=guards, source=source)

    def steps(self, request: Request) -> int:
        """Return how many denoising steps a video takes."""
        return request.sampler.steps * len(windows(request.frames, request.window, request.overlap))

    def _make(
        self, requests: Sequence[Request], pictures: Sequence[Picture], watch: _Watch
    ) -> Float[Tensor, "batch 3 frames height width"]:
        first = requests[0]
        shared = ("sampler", "window", "overlap", "branches", "decode_frames", "decode_tile", "condition_frame")
        for key in shared:
            if any(getattr(request, key) != getattr(first, key) for request in requests):
                raise ValueError(f"{key}: differs within a batch; use batch_size=1")
        clips = [self.clip(request, picture) for request, picture in zip(requests, pictures, strict=True)]
        whole = joined_clips(clips).to(self.device)
        sampler, pieces = first.sampler.build(), windows(first.frames, first.window, first.overlap)
        video: Tensor | None = None
        latents: Tensor | None = None
        for number, piece in enumerate(pieces):
            edits: list[StepEdit] = []
            image = None
            if latents is not None and video is not None:
                # The window starts on frames that exist: they stay, and the first of them is its image.
                known = pieces[number - 1].stop - piece.start
                edits, image = [OverlapFrames(known=latents[:, :, -known:])], video[:, :, piece.start]
            latents = self._denoise(window_of(whole, piece, image), requests, sampler, edits, number, watch)
            with torch.no_grad(), self.placement.stage("decode"):
                decoded = decode(
                    self.model.first_stage, latents, frames_at_once=first.decode_frames, tile=first.decode_tile
                )
            decoded = decoded.float().clamp(-1, 1)
            video = decoded if video is None else torch.cat([video[:, :, : piece.start], decoded], dim=2)
        assert video is not None
        return video

    @torch.no_grad()
    def _denoise(
        self,
        batch: ClipBatch,
        requests: Sequence[Request],
        sampler: Sampler,
        edits: Sequence[StepEdit],
        window: int,
        watch: _Watch,
    ) -> Float[Tensor, "batch channels frames height width"]:
        first = requests[0]
        draws = Draws(batch.seeds, device=self.device)
        if window:
            draws = _WindowDraws(draws, window)
        frame = torch.full_like(batch.seeds, 0 if window else first.condition_frame)
        negative = [request.negative_caption for request in requests]
        with computing(self.precision, self.device):
            with self.placement.stage("encode"):
                predict, image_latents = self.model.denoiser(
                    batch,
                    draws,
                    condition_frame=frame,
                    negative_captions=negative,
                    joint=first.branches == "together",
                )
            with self.placement.stage("denoise"):
                return sampler.sample(
                    predict,
                    schedule=self.model.schedule,
                    prediction=self.model.prediction,
                    shape=tuple(image_latents.shape[1:]),
                    draws=draws,
                    edits=edits,
                    on_step=watch.step_done,
                )


class _WindowDraws(Draws):
    """The draws of a later window: other numbers for the same seeds."""

    def __init__(self, draws: Draws, window: int) -> None:
        super().__init__(torch.tensor(draws.seeds), device=draws.device)
        self.window = window

    def _generators(self, purpose: str) -> list[torch.Generator]:
        return super()._generators(f"window{self.window}/{purpose}")


class _Watch:
    """Tells a caller how far a call is, and asks whether to stop."""

    def __init__(self, *, steps: int, on_progress: OnProgress | None, cancel: Callable[[], bool] | None) -> None:
        self.steps = steps
        self.on_progress = on_progress
        self.cancel = cancel
        self.done = 0
        self.start = time.monotonic()

    def step_done(self, step: int, steps: int) -> None:
        self.done += 1
        if self.on_progress is not None:
            # Some spacings visit fewer timesteps than asked for.
            total = max(self.steps, self.done)
            self.on_progress(Progress(step=self.done, steps=total, seconds=time.monotonic() - self.start))
        if self.cancel is not None and self.cancel():
            raise SamplingCancelledError(f"stopped after {self.done} of {self.steps} steps")


def _load_elsewhere(path: str | Path | Sequence[str | Path], keywords: Mapping[str, Any]) -> PipelineSource:
    found = list(entry_points(group=SOURCES))
    if not found:
        raise ValueError(
            f"{path}: not an exported folder (no pipeline.json), and nothing is installed that loads runs and released "
            "files; install cami2v (`pip install -e .`), whose `launch` package does"
        )
    return found[0].load()(path, **keywords)
