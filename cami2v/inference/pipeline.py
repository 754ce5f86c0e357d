"""One way from an image to a video, for Python, the command line and the app: `Pipeline` (docs/pipeline.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from cami2v.batch import Cameras, ClipBatch
from cami2v.camera_control.liveness import CameraEffect, GuardSettings, check_camera
from cami2v.compilation import CompileMode, check_compilation, check_graphs, compile_denoiser, uses_graphs
from cami2v.encoders.base import DepthEstimator
from cami2v.inference.batch_sampling import BatchSampling
from cami2v.inference.clip_video import to_frames
from cami2v.inference.clips import windows
from cami2v.inference.exported import is_exported, load_exported
from cami2v.inference.image_clip import image_clip
from cami2v.inference.model_facts import ModelFacts
from cami2v.inference.placement import Placement, computing, set_precision
from cami2v.inference.progress import OnProgress, Progress, SamplingCancelledError, Watch
from cami2v.inference.request import Precision, Request
from cami2v.inference.sampler_settings import SamplerSettings
from cami2v.inference.sampling_plan import SamplingPlan
from cami2v.inference.scene import Depth, Scene, depth_sha256, framed_depth, open_depth, render_scene
from cami2v.inference.settings import Picture, VideoSettings, open_picture, picture_sha256, requests_for
from cami2v.inference.source import PipelineSource
from cami2v.signature import build_settings

__all__ = ["Generated", "OnProgress", "Pipeline", "Progress", "SamplingCancelledError"]

SOURCES = "cami2v.model_sources"
"""Entry points that load what is not an exported folder: (path, **keywords) -> PipelineSource."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """A video and everything needed to make it again."""

    frames: UInt8[np.ndarray, "frames height width 3"]
    request: Request
    picture: Picture
    """The image as it was given."""
    depth: Depth | None = None
    """What the scene was made of, at the video's size; None: there was no scene."""
    preview: UInt8[np.ndarray, "frames height width 3"] | None = None
    """The scene, as the noise shaping saw it."""


class Pipeline:
    """A loaded model that animates images.

    Args:
        source: model, sampler and what they are.
        device: None takes CUDA where there is one.
        device_map: parts on devices of their own (docs/pipeline.md): {"text_encoder": "cpu", "first_stage": "cuda:1"}.
        precision: of everything but decoding and metric depth. fp32 is what the published numbers were checked in.
        offload: keep parts that a stage of sampling does not need in host memory.
        compile: backend of torch.compile for the denoiser, `inductor`; the model's denoiser is compiled in place.
        compile_mode: inductor's; `reduce-overhead` and `max-autotune` replay CUDA graphs.
        sampler: takes the place of the model's own, for calls that do not say otherwise.
        depth_network: takes the place of the model's own.
    """

    def __init__(
        self,
        source: PipelineSource,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        offload: bool = False,
        device_map: Mapping[str, str] | None = None,
        compile: str | None = None,
        compile_mode: CompileMode | None = None,
        sampler: SamplerSettings | None = None,
        depth_network: DepthEstimator | None = None,
    ) -> None:
        check_compilation(compile, compile_mode)
        if offload and uses_graphs(compile, compile_mode):
            raise ValueError("compile_mode and offload: CUDA graphs need weights that stay where they are; choose one")
        self.source = source
        self.sampler = SamplerSettings.of(source.sampler) if sampler is None else sampler
        self.precision: Precision = precision
        set_precision(source.model.eval(), precision)
        self.placement = Placement(
            source.model,
            device=torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
            offload=offload,
            depth=source.model.depth if depth_network is None else depth_network.eval(),
            device_map=device_map or {},
        )
        check_graphs(compile, compile_mode, on_gpu=self.placement.device.type == "cuda")
        self.compile = compile
        if compile is not None:
            compile_denoiser(source.model.backbone, compile, compile_mode)
        self._estimated: tuple[Tensor, Depth] | None = None
        self.model, self.device, self.depth_network = (
            self.placement.model,
            self.placement.device,
            self.placement.depth,
        )

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | Sequence[str | Path],
        *,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        offload: bool = False,
        device_map: Mapping[str, str] | None = None,
        compile: str | None = None,
        compile_mode: CompileMode | None = None,
        depth_network: DepthEstimator | None = None,
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
        return cls(
            loaded,
            device=device,
            precision=precision,
            offload=offload,
            device_map=device_map,
            compile=compile,
            compile_mode=compile_mode,
            depth_network=depth_network,
        )

    def __call__(
        self,
        image: Any,
        *,
        depth: Any = None,
        batch_size: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Callable[[], bool] | None = None,
        **settings: Any,
    ) -> list[Generated]:
        """Animate an image, or a list of images; the settings are those of `VideoSettings`.

        Lists make one video for each item: `pipeline("room.png", seed=[0, 1, 2])`. `depth` is the image's depth map for
        `noise_shaping`, or a list of them (`open_depth`; None: the depth network estimates it). `batch_size` videos are
        made at once (None: all). `cancel` is asked after every denoising step; if it says so, SamplingCancelledError is
        raised. Raises ValueError in one line for an unknown or impossible setting, before anything is sampled.
        """
        images = [open_picture(each) for each in (image if isinstance(image, (list, tuple)) else [image])]
        given = list(depth) if isinstance(depth, (list, tuple)) else [depth] * len(images)
        if len(given) != len(images):
            raise ValueError(f"depth: {len(given)} maps for {len(images)} images; give one each")
        requests = self.requests(images, **settings)
        rows = [number % len(images) for number in range(len(requests))]
        pictures = [images[row][1] for row in rows]
        depths = [
            None if request.noise_shaping is None else self.scene_depth(request, images[row][1], given[row])
            for request, row in zip(requests, rows, strict=True)
        ]
        return self.generate(
            requests, pictures, depths=depths, batch_size=batch_size, on_progress=on_progress, cancel=cancel
        )

    def requests(self, images: Sequence[tuple[str, Picture]], **settings: Any) -> list[Request]:
        """Write a call down without making anything; `images` as `open_picture` gives them."""
        chosen = build_settings(VideoSettings, settings, "pipeline")
        return requests_for(list(images), chosen, self.facts())

    def facts(self) -> ModelFacts:
        """Return what requests depend on."""
        backbone, first_stage = self.model.backbone, self.model.first_stage
        versions = {package: version(package) for package in ("torch", "diffusers")}
        constant = {
            "precision": self.precision,
            "compile": self.compile,
            "model": self.source.identity,
            "versions": versions,
        }
        return ModelFacts(
            defaults=self.source.defaults,
            sampler=self.sampler,
            multiple=first_stage.downsample * backbone.smallest_multiple,
            ends_with_image=backbone.ends_with_image,
            timesteps=self.model.schedule.timesteps,
            constant=constant,
        )

    def generate(
        self,
        requests: Sequence[Request],
        pictures: Sequence[Picture],
        *,
        depths: Sequence[Depth | None] | None = None,
        batch_size: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Callable[[], bool] | None = None,
    ) -> list[Generated]:
        """Make what requests describe, by this model whatever they say of theirs; also what repeats a video.

        `depths` are those of `scene_depth`; what is missing is estimated. Raises ValueError where a picture or a depth
        map is not the one of its request.
        """
        for request, picture in zip(requests, pictures, strict=True):
            _check_picture(request, picture)
        inputs = [
            self._with_depth(request, picture, depth)
            for request, picture, depth in zip(requests, pictures, depths or [None] * len(requests), strict=True)
        ]
        requests = [request for request, _ in inputs]
        size = batch_size or len(requests)
        batches = [range(start, min(start + size, len(requests))) for start in range(0, len(requests), size)]
        watch = Watch(
            steps=sum(self.steps(requests[batch.start]) for batch in batches), on_progress=on_progress, cancel=cancel
        )
        made: list[Generated] = []
        for batch in batches:
            some = [requests[i] for i in batch]
            clips = [self.clip(requests[i], pictures[i]) for i in batch]
            scenes = [
                None if depth is None else _scene(request, clip, depth)
                for clip, (request, depth) in zip(clips, inputs[batch.start : batch.stop], strict=True)
            ]
            videos = self._batch(_shared_plan(some), [request.negative_caption for request in some], watch).video(
                clips, [scene for scene in scenes if scene is not None]
            )
            made += [
                Generated(
                    frames=to_frames(video),
                    request=requests[i],
                    picture=pictures[i],
                    depth=inputs[i][1],
                    preview=None if scene is None else to_frames(scene.video),
                )
                for i, video, scene in zip(batch, videos, scenes, strict=True)
            ]
        return made

    def animate(self, clip: ClipBatch, plan: SamplingPlan) -> Float32[Tensor, "1 3 frames height width"]:
        """Make a clip's video along its own cameras, in [-1, 1]; of its frames only that of the image is seen.

        `plan` comes of `SamplingSettings.plan(pipeline.facts(), ...)`. In a clip whose scene shapes the noise,
        `translation_scale` takes poses from metres to the model's unit. Raises ValueError where that scene needs a
        depth network that this model does not have.
        """
        scenes = []
        if plan.noise_shaping is not None:
            image = clip.video[:, :, plan.condition_frame]
            depth = self._estimated_depth(image)
            scenes = [render_scene(clip, depth, condition_frame=plan.condition_frame, compatibility=plan.compatibility)]
        watch = Watch(steps=plan.sampler.steps, on_progress=None, cancel=None)
        return self._batch(plan, [""], watch).video([clip], scenes)

    def _batch(self, plan: SamplingPlan, negative_captions: Sequence[str], watch: Watch) -> BatchSampling:
        return BatchSampling(
            model=self.model,
            placement=self.placement,
            precision=self.precision,
            plan=plan,
            negative_captions=negative_captions,
            watch=watch,
        )

    def preview(self, request: Request, picture: Picture, depth: Depth) -> Scene:
        """Draw what the request's cameras see of the picture; `depth` as `scene_depth` gives it. Nothing is sampled."""
        return _scene(request, self.clip(request, picture), depth)

    def scene_depth(self, request: Request, picture: Picture, given: Any = None) -> Depth:
        """Return the depth of what the model is shown: of a map that was given, else estimated.

        Raises ValueError for neither, and for a map that is not the picture's.
        """
        height, width = picture.shape[1:]
        if given is not None:
            return framed_depth(open_depth(given), (height, width), (request.height, request.width))
        return self._estimated_depth(self.clip(request, picture).video[:, :, request.condition_frame])

    def _estimated_depth(self, shown: Float32[Tensor, "1 3 height width"]) -> Depth:
        if self.depth_network is None:
            raise ValueError(
                "depth: this model has no depth network; give a depth map of the image (depth=<file or array>, "
                "depth_map=<file> of cami2v sample), or a network (docs/realcam.md)"
            )
        # Of the image that was asked for last: one network for all its seeds and trajectories.
        if self._estimated is None or not torch.equal(self._estimated[0], shown):
            with torch.no_grad(), self.placement.stage("depth"):
                self._estimated = (shown, self.depth_network.metric_depth(shown.to(self.device))[0].float().cpu())
        return self._estimated[1]

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
            metres_per_unit=request.metres_per_unit or 1.0,
        )

    def check_camera(
        self, clip: ClipBatch, *, guards: GuardSettings, source: str, others: Cameras | None = None
    ) -> CameraEffect | None:
        """Ask whether the trajectory changes the prediction (docs/camera-alive.md), in the stages' own places."""
        clip, others = clip.to(self.device), None if others is None else others.to(self.device)
        stages = (self.placement.stage("encode"), self.placement.stage("denoise"))
        with stages[0], stages[1], computing(self.precision, self.device):
            return check_camera(self.model, clip, others=others, guards=guards, source=source)

    def steps(self, request: Request) -> int:
        """Return how many denoising steps a video takes."""
        return request.sampler.steps * len(windows(request.frames, request.window, request.overlap))

    def _with_depth(self, request: Request, picture: Picture, depth: Depth | None) -> tuple[Request, Depth | None]:
        if request.noise_shaping is None:
            return request, None
        depth = self.scene_depth(request, picture) if depth is None else depth
        found = depth_sha256(depth)
        if request.depth_sha256 not in (None, found):
            raise ValueError(
                "depth: not the map of the request; give the one that its video carries, or it was estimated elsewhere"
            )
        return dataclasses.replace(request, depth_sha256=found), depth


def _shared_plan(requests: Sequence[Request]) -> SamplingPlan:
    """Return the plan of a batch. Raises ValueError where its videos have too little in common."""
    first = requests[0].plan
    for request in requests:
        for field in dataclasses.fields(first):
            if getattr(request, field.name) != getattr(first, field.name):
                raise ValueError(f"{field.name}: differs within a batch; use batch_size=1")
    return first


def _scene(request: Request, clip: ClipBatch, depth: Depth) -> Scene:
    return render_scene(clip, depth, condition_frame=request.condition_frame, compatibility=request.compatibility)


def _check_picture(request: Request, picture: Picture) -> None:
    if picture_sha256(picture) != request.image_sha256:
        raise ValueError(
            f"image {request.image or 'given as pixels'}: its pixels are not those of the request; the file was "
            "changed, or it is another one"
        )


def _load_elsewhere(path: str | Path | Sequence[str | Path], keywords: Mapping[str, Any]) -> PipelineSource:
    found = list(entry_points(group=SOURCES))
    if not found:
        raise ValueError(
            f"{path}: not an exported folder (no pipeline.json), and nothing is installed that loads runs and released "
            "files; install cami2v (`pip install -e .`), whose `launch` package does"
        )
    return found[0].load()(path, **keywords)
