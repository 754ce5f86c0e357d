"""What the app does, without the page: every request goes through `Pipeline` and `cami2v.trajectories`."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cami2v.camera_control.liveness import GuardSettings
from cami2v.inference.app.camera_path import Editor, uploaded_name
from cami2v.inference.app.captions import PictureCaptions
from cami2v.inference.app.gallery import Gallery, Result
from cami2v.inference.app.job import Finished, Job
from cami2v.inference.app.models import HeldModels, ModelChoice
from cami2v.inference.app.preview import DepthNetwork, Preview, Previews, Subject
from cami2v.inference.app.replay import Replay
from cami2v.inference.app.settings import Limits, PreviewSettings
from cami2v.inference.app.uploads import open_uploaded_path, read_depth_picture, read_picture, shown_name
from cami2v.inference.app.visit import Visit
from cami2v.inference.captioner import CaptionerSettings
from cami2v.inference.pipeline import Generated, Pipeline
from cami2v.inference.progress import Progress
from cami2v.inference.request import Request
from cami2v.inference.sampler_settings import SamplerKind
from cami2v.inference.scene import Depth
from cami2v.inference.settings import Picture, open_picture

GUARDS = GuardSettings(camera_alive="error", camera_alive_step=1)
PROBE = "orbit_right"
"""The path by which a model is asked whether it follows paths: a static one would change nothing in any model."""
OVERLAP = 4
"""Frames that windows of longer videos share, where a window has so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFields:
    """What the fields of a video say."""

    caption: str
    negative_caption: str
    frames: int
    steps: int
    sampler: SamplerKind | None
    """None: the model's own."""
    guidance_scale: float
    camera_guidance: float
    seed: int
    noise_shaping: int | None = None
    """The lowest timestep that follows the picture's scene; None: none does (docs/realcam.md)."""
    metres_per_unit: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSheet:
    """What the page says of a model, and sets its fields to."""

    name: str
    frames: int
    size: tuple[int, int]
    steps: int
    guidance_scale: float
    camera_guidance: float
    device: str
    precision: str
    scale_policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished video, and what else is to be said."""

    result: Result
    remarks: tuple[str, ...]


class Studio:
    """One for the whole app; whatever belongs to a visitor is in `Visit`."""

    def __init__(
        self,
        *,
        choices: list[ModelChoice],
        held_models: int,
        limits: Limits,
        preview: PreviewSettings,
        depth_network: DepthNetwork | None,
        captioner: CaptionerSettings | None,
        served: Path,
        output: Path,
        frames_per_second: float,
    ) -> None:
        self.choices = choices
        self.models = HeldModels(held_models)
        self.limits = limits
        self.preview = preview
        self.previews = Previews(preview, depth_network)
        self.captions = PictureCaptions(captioner, self.models)
        self.gallery = Gallery(served=served, kept=output, frames_per_second=frames_per_second)
        self._camera_remarks: dict[str, str] = {}

    def choice(self, method: str, checkpoint: str) -> ModelChoice:
        """Find a model. Raises ValueError for one that is not offered."""
        for choice in self.choices:
            if (choice.method, choice.checkpoint) == (method, checkpoint):
                return choice
        raise ValueError(f"model: {method}, {checkpoint} is not offered here")

    def sheet(self, choice: ModelChoice) -> ModelSheet:
        """Load a model, unless it is held, and say what it is."""
        with self.models.using(choice.name, choice.load) as pipeline:
            own, sampler = pipeline.source.defaults, pipeline.sampler
            return ModelSheet(
                name=choice.name,
                frames=own.frames,
                size=(own.height, own.width),
                steps=sampler.steps,
                guidance_scale=sampler.guidance_scale,
                camera_guidance=sampler.camera_guidance,
                device=str(pipeline.device),
                precision=pipeline.precision,
                scale_policy=own.scale_policy,
            )

    def take_picture(self, visit: Visit, path: Path) -> None:
        """Take an uploaded picture; the last one stays where this raises ValueError."""
        visit.subject = Subject(picture=read_picture(path, self.limits), name=shown_name(path))

    def take_depth(self, visit: Visit, path: Path) -> None:
        """Take an uploaded depth map; raises ValueError where there is no picture that it could belong to."""
        if visit.subject is None:
            raise ValueError("depth map: hand in its picture first")
        visit.subject = dataclasses.replace(visit.subject, depth=read_depth_picture(path, self.limits))

    def take_path(self, visit: Visit, paths: list[Path]) -> None:
        """Take an uploaded camera path; the last one stays where this raises ValueError."""
        with tempfile.TemporaryDirectory(prefix="cami2v-app-") as folder:
            chosen = open_uploaded_path(paths, Path(folder) / "path", self.limits)
        visit.uploaded = (chosen, uploaded_name(paths))

    def show(
        self,
        visit: Visit,
        editor: Editor,
        *,
        frames: int,
        field_of_view_degrees: float | None,
        wall_distance: float,
    ) -> Preview:
        """Draw what the path will be like. Raises ValueError in one line for fields that make none."""
        self._check("frames", frames)
        return self.previews.draw(
            visit.subject, editor.cameras(frames), condition_frame=editor.condition_frame,
            field_of_view_degrees=field_of_view_degrees, wall_distance=wall_distance,
        )  # fmt: skip

    def generate(
        self,
        visit: Visit,
        job: Job,
        choice: ModelChoice,
        editor: Editor,
        fields: VideoFields,
        field_of_view_degrees: float | None,
    ) -> Iterator[Progress | str | Finished[Made]]:
        """Make a video; bad fields become the end of the job."""

        def work(job: Job) -> Made:
            subject = visit.subject
            if subject is None:
                raise ValueError("picture: none yet; hand one in, or take an example")
            self._check("frames", fields.frames)
            self._check("steps", fields.steps)
            cameras, name = editor.cameras(fields.frames), editor.name()
            picture = open_picture(subject.picture)
            job.tell(f"loading {choice.name}")
            with self.models.using(choice.name, choice.load) as pipeline:
                (request,) = pipeline.requests(
                    [picture],
                    trajectory=cameras,
                    condition_frame=editor.condition_frame,
                    field_of_view_degrees=field_of_view_degrees,
                    overlap=min(OVERLAP, max(1, pipeline.source.defaults.frames - 1)),
                    **dataclasses.asdict(fields),
                )
                # The poses are what counts; the name is for people.
                request = dataclasses.replace(request, trajectory=name)
                depth = None
                if request.noise_shaping is not None:
                    job.tell("measuring the scene")
                    depth = pipeline.scene_depth(request, picture[1], subject.depth)
                return self._make(visit, job, pipeline, choice, request, picture[1], depth)

        return job.follow(work)

    def replay(
        self, visit: Visit, job: Job, choice: ModelChoice, replay: Replay
    ) -> Iterator[Progress | str | Finished[Made]]:
        """Make a video again and compare its frames."""

        def work(job: Job) -> Made:
            job.tell(f"loading {choice.name}")
            with self.models.using(choice.name, choice.load) as pipeline:
                replay.check(pipeline, choice.name, self.limits)
                made = self._make(visit, job, pipeline, choice, replay.request, replay.picture, replay.depth())
            verdict = replay.verdict(made.result.frames_sha256)
            return dataclasses.replace(made, remarks=(verdict, *made.remarks))

        return job.follow(work)

    def choice_for(self, result: Result) -> ModelChoice:
        """Find the model that made a video of this page."""
        return next(choice for choice in self.choices if choice.name == result.made_by)

    def _make(
        self,
        visit: Visit,
        job: Job,
        pipeline: Pipeline,
        choice: ModelChoice,
        request: Request,
        picture: Picture,
        depth: Depth | None,
    ) -> Made:
        start = time.monotonic()
        job.tell("looking whether the camera changes anything")
        remark = self._camera_remark(pipeline, choice, picture)
        job.tell("encoding the picture")
        made: Generated = pipeline.generate(
            [request], [picture], depths=[depth], on_progress=job.tell, cancel=lambda: job.stopped
        )[0]
        visit.made += 1
        seconds = time.monotonic() - start
        result = self.gallery.add(made, number=visit.made, made_by=choice.name, seconds=seconds)
        visit.keep(result, self.limits.results)
        return Made(result=result, remarks=(remark,) if remark else ())

    def _camera_remark(self, pipeline: Pipeline, choice: ModelChoice, picture: Picture) -> str:
        """Ask each model once whether it follows its camera; return what is to be said about it."""
        if choice.name not in self._camera_remarks:
            (probe,) = pipeline.requests([("", picture)], trajectory=PROBE)
            try:
                pipeline.check_camera(pipeline.clip(probe, picture), guards=GUARDS, source=choice.name)
                remark = ""
            except ValueError:
                remark = "The camera changes nothing in this model's prediction (docs/camera-alive.md)."
            self._camera_remarks[choice.name] = remark
        return self._camera_remarks[choice.name]

    def _check(self, name: str, value: int) -> None:
        most = getattr(self.limits, name)
        if not 1 <= value <= most:
            raise ValueError(f"{name}: got {value}, choose 1 to {most}")
