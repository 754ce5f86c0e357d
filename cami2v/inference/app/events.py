"""What happens when something on the page is touched."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from cami2v.inference.app import markup, path_fields
from cami2v.inference.app.camera_path import one_more
from cami2v.inference.app.examples import examples
from cami2v.inference.app.job import Finished
from cami2v.inference.app.models import methods_of
from cami2v.inference.app.page import OWN_SAMPLER, Page
from cami2v.inference.app.path_fields import NOTHING, number, optional
from cami2v.inference.app.replay import Replay
from cami2v.inference.app.studio import Made, Studio, VideoFields
from cami2v.inference.app.uploads import handed_in, shown_name
from cami2v.inference.app.visit import Visit, Visits
from cami2v.inference.progress import Progress

HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, **HIDDEN}
"""Whatever uses a model waits for its turn."""
SEEDS = 2**31
WIDEST, MOST_METRES = 175.0, 1e6


class Events:
    """Handlers of one app; all that belongs to a visitor is looked up by the page's own id."""

    def __init__(self, page: Page, studio: Studio, folder: Path) -> None:
        self.page = page
        self.studio = studio
        self.folder = folder
        self.visits = Visits()

    def connect(self, blocks: gr.Blocks) -> None:
        """Tie handlers to components; to be called within `blocks`."""
        page = self.page
        self._connect_picture()
        self._connect_path(blocks)
        self._connect_models()
        self._connect_jobs()
        gr.on(
            [page.side_by_side.click], self.side_by_side, [page.compare], [page.compared, page.gallery_notice], **HIDDEN
        )
        page.gallery.select(self.show_result, None, [page.video, page.facts], **HIDDEN)
        blocks.unload(self.leave)

    def _connect_picture(self) -> None:
        page = self.page
        taken = [page.picture, page.picture_notice]
        # Unopened: gradio would take the file for a picture, and `uploads` looks what it is.
        after = [page.picture.upload(self.take_picture, [page.picture], taken, preprocess=False, **HIDDEN)]
        after.append(page.picture.clear(self.drop_picture, None, taken, **HIDDEN))
        chosen = [
            *taken, page.caption, page.field_of_view, page.path.kind, page.path.motion, page.path.together,
            page.path.amount, page.path.distance, *page.path.groups,
        ]  # fmt: skip
        after.append(page.examples.select(self.take_example, None, chosen, **HIDDEN))
        after.append(page.depth_map.upload(self.take_depth, [page.depth_map], [page.picture_notice], **HIDDEN))
        for event in after:
            event.then(self.show, self._shown(), [page.preview, page.preview_facts, page.path_notice], **HIDDEN)
        page.describe.click(self.describe, None, [page.caption, page.picture_notice], **ONE_AT_A_TIME)

    def _connect_path(self, blocks: gr.Blocks) -> None:
        page = self.page
        seen = [page.preview, page.preview_facts, page.path_notice]
        page.path.kind.input(_groups, [page.path.kind], list(page.path.groups), queue=False, **HIDDEN)
        touched = [field.input for field in (*page.path.inputs(), page.field_of_view, page.wall, page.frames)]
        gr.on(touched, self.show, self._shown(), seen, trigger_mode="always_last", concurrency_limit=2, **HIDDEN)
        added = page.path.more.click(one_more, [page.path.table], [page.path.table], **HIDDEN)
        added.then(self.show, self._shown(), seen, **HIDDEN)
        uploaded = page.path.upload.upload(self.take_path, [page.path.upload], [page.path_notice], **HIDDEN)
        uploaded.success(self.show, self._shown(), [page.preview, page.preview_facts], **HIDDEN)
        blocks.load(self.show, self._shown(), seen, **HIDDEN)

    def _connect_models(self) -> None:
        page = self.page
        sheet = [page.header, page.note, page.frames, page.steps, page.guidance, page.camera_guidance]
        page.method.input(self.choose_method, [page.method], [page.checkpoint], queue=False, **HIDDEN).then(
            self.choose_model, [page.method, page.checkpoint], [*sheet, page.model_notice], **ONE_AT_A_TIME
        )
        page.checkpoint.input(
            self.choose_model, [page.method, page.checkpoint], [*sheet, page.model_notice], **ONE_AT_A_TIME
        )
        page.other_seed.click(lambda: secrets.randbelow(SEEDS), None, [page.seed], queue=False, **HIDDEN)

    def _connect_jobs(self) -> None:
        page = self.page
        made = [page.progress, page.video, page.facts, page.gallery, page.compare, page.replayed]
        asked = [
            page.method, page.checkpoint, page.caption, page.negative, page.frames, page.steps, page.sampler,
            page.guidance, page.camera_guidance, page.seed,
            page.follow, page.lowest, page.metres, page.field_of_view, *page.path.inputs(),
        ]  # fmt: skip
        starts = (
            (page.generate, self.generate, asked),
            (page.replay, self.replay, [page.method, page.checkpoint, page.replayed, page.replay_file]),
        )
        for button, work, inputs in starts:
            begun = button.click(self.begin, None, [page.progress], queue=False, **HIDDEN)
            done = begun.success(work, inputs, made, **ONE_AT_A_TIME)
            done.failure(self.give_up, None, [page.progress], queue=False, **HIDDEN)
        page.cancel.click(self.cancel, None, [page.progress], queue=False, **HIDDEN)

    def _shown(self) -> list[Any]:
        page = self.page
        return [page.frames, page.field_of_view, page.wall, *page.path.inputs()]

    # Pictures

    def take_picture(self, handed: Any, request: gr.Request) -> tuple[Any, str]:
        """Take an upload, or say what is wrong and keep what there was."""
        visit = self._visit(request)
        try:
            self.studio.take_picture(visit, handed_in(handed, self.folder))
            return _picture_of(visit), ""
        except ValueError as error:
            return _picture_of(visit), markup.notice(f"Not taken: {error}.")

    def drop_picture(self, request: gr.Request) -> tuple[Any, str]:
        """Forget the picture."""
        self._visit(request).subject = None
        return None, ""

    def take_example(self, event: gr.SelectData, request: gr.Request) -> list[Any]:
        """Take a picture that ships with the app, with its depth and a path that suits it."""
        example = examples()[int(event.index)]
        visit = self._visit(request)
        visit.subject = example.subject()
        return [
            _picture_of(visit), "", example.caption, example.field_of_view_degrees, "preset", example.motion,
            example.together or NOTHING, example.amount, example.distance, *_groups("preset"),
        ]  # fmt: skip

    def take_depth(self, path: str | None, request: gr.Request) -> str:
        """Take a depth map for the preview."""
        try:
            if path is not None:
                self.studio.take_depth(self._visit(request), Path(path))
            return markup.notice("The preview uses this depth map.", "done")
        except ValueError as error:
            return markup.notice(f"Not taken: {error}.")

    def describe(self, request: gr.Request) -> tuple[Any, str]:
        """Let the captioner write the caption."""
        subject = self._visit(request).subject
        try:
            if subject is None:
                raise ValueError("picture: none yet; hand one in first")
            return self.studio.captions.describe(subject.picture), ""
        except ValueError as error:
            return gr.skip(), markup.notice(f"No caption: {error}.")

    # Paths

    def take_path(self, files: Sequence[str] | None, request: gr.Request) -> str:
        """Take a path from files, or say what is wrong and keep the last one."""
        try:
            if files:
                self.studio.take_path(self._visit(request), [Path(file) for file in files])
            return ""
        except ValueError as error:
            return markup.notice(f"Not taken: {error}.")

    def show(
        self, request: gr.Request, frames: float | None, angle: float | None, wall: float | None, *fields: Any
    ) -> tuple[Any, Any, str]:
        """Draw the path as the fields say; what cannot be drawn leaves the last drawing."""
        visit = self._visit(request)
        try:
            editor = path_fields.read(fields, visit)
            preview = self.studio.show(
                visit, editor, frames=int(number(frames, "frames")),
                field_of_view_degrees=optional(angle, "field of view", WIDEST),
                wall_distance=number(wall, "distance of the picture"),
            )  # fmt: skip
        except ValueError as error:
            return gr.skip(), gr.skip(), markup.notice(f"{error}.")
        does = editor.does()
        rows = [("path", f"{editor.name()}: {does}" if does else editor.name()), *preview.facts]
        rows += [("depth", preview.depth_from)] if preview.depth_from else []
        return preview.scene, markup.facts(rows), ""

    # Models

    def choose_method(self, method: str) -> Any:
        """Offer the checkpoints of a method."""
        names = methods_of(self.studio.choices)[method]
        return gr.update(choices=names, value=names[0])

    def choose_model(self, method: str, checkpoint: str) -> list[Any]:
        """Load a model and set the fields to what it was trained for."""
        try:
            choice = self.studio.choice(method, checkpoint)
            sheet = self.studio.sheet(choice)
        except ValueError as error:
            return [*[gr.skip()] * 6, markup.notice(f"Not loaded: {error}.")]
        return [
            markup.header(sheet), markup.notice(choice.note, "hint"), sheet.frames, sheet.steps, sheet.guidance_scale,
            sheet.camera_guidance, "",
        ]  # fmt: skip

    # Jobs

    def begin(self, request: gr.Request) -> str:
        """Note that this visitor waits for a turn."""
        try:
            self._visit(request).begin()
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        return markup.progress("waiting", 0, "waiting for a turn")

    def generate(self, request: gr.Request, *asked: Any) -> Iterator[list[Any]]:
        """Make a video, and say how far it is."""
        method, checkpoint, caption, negative, frames, steps, sampler, guidance, camera, seed, *more = asked
        follow, lowest, metres, angle, *fields = more
        visit = self._visit(request)
        assert visit.job is not None
        try:
            video = VideoFields(
                caption=caption or "", negative_caption=negative or "", frames=int(number(frames, "frames")),
                steps=int(number(steps, "steps")), sampler=None if sampler == OWN_SAMPLER else sampler,
                guidance_scale=number(guidance, "guidance"), camera_guidance=number(camera, "camera guidance"),
                seed=int(seed or 0), noise_shaping=int(number(lowest, "timestep")) if follow else None,
                metres_per_unit=optional(metres, "metres per unit", MOST_METRES),
            )  # fmt: skip
            choice, editor = self.studio.choice(method, checkpoint), path_fields.read(fields, visit)
            view = optional(angle, "field of view", WIDEST)
        except ValueError as error:
            yield self._ended(visit, "failed", f"{error}")
            return
        yield from self._follow(visit, self.studio.generate(visit, visit.job, choice, editor, video, view))

    def replay(
        self, method: str, checkpoint: str, number: int | None, file: str | None, request: gr.Request
    ) -> Iterator[list[Any]]:
        """Make a video of this page, or of a file, again."""
        visit = self._visit(request)
        assert visit.job is not None
        choice = self.studio.choice(method, checkpoint)
        try:
            if file is not None:
                replay = Replay.from_file(Path(file), shown_name(Path(file)), self.studio.limits)
            else:
                result = next((each for each in visit.results if each.number == number), None)
                if result is None:
                    raise ValueError("replay: choose a video of this page, or hand one in")
                choice = self.studio.choice_for(result)
                replay = Replay.from_file(result.path, result.short_label, self.studio.limits)
        except ValueError as error:
            yield self._ended(visit, "failed", f"{error}")
            return
        yield from self._follow(visit, self.studio.replay(visit, visit.job, choice, replay))

    def cancel(self, request: gr.Request) -> Any:
        """Ask the job to stop. It says itself that it will, and when it did: an answer from here might come later."""
        job = self._visit(request).job
        if job is None or not job.open:
            return markup.progress("idle", 0, "Nothing to cancel.")
        job.stop()
        job.tell("stopping after this step")
        return gr.skip() if job.began else markup.progress("waiting", 0, "its turn will be skipped")

    def give_up(self, request: gr.Request) -> str:
        """Say that a job came to nothing, after gradio said why."""
        self._visit(request).job = None
        return markup.progress("failed", 0, "Not started, or broken off.")

    def _follow(self, visit: Visit, told: Iterator[Progress | str | Finished[Made]]) -> Iterator[list[Any]]:
        share = 0.0
        for each in told:
            if isinstance(each, Progress):
                share = each.step / each.steps
                yield [markup.step(each), *[gr.skip()] * 5]
            elif isinstance(each, str):
                yield [markup.progress("running", share, each), *[gr.skip()] * 5]
            elif each.error is not None:
                yield self._ended(visit, "failed", each.error)
            elif each.result is None:
                yield self._ended(visit, "stopped", "Cancelled. Nothing was kept of it.", share)
            else:
                yield self._shown_result(visit, each.result)

    def _ended(self, visit: Visit, state: str, text: str, share: float = 0.0) -> list[Any]:
        visit.job = None
        return [markup.progress(state, share, text), *[gr.skip()] * 5]

    def _shown_result(self, visit: Visit, made: Made) -> list[Any]:
        visit.job = None
        result = made.result
        names = [(each.label, each.number) for each in visit.results]
        return [
            markup.progress("done", 1, f"Done in {result.seconds:.1f} s."),
            str(result.path),
            markup.facts(result.facts(), made.remarks),
            [(str(each.path), each.label) for each in visit.results],
            gr.update(choices=names, value=[number for _, number in names[-2:]]),
            gr.update(choices=names, value=result.number),
        ]

    # Results

    def show_result(self, event: gr.SelectData, request: gr.Request) -> tuple[Any, Any]:
        """Show a video of the gallery."""
        results = self._visit(request).results
        if not 0 <= int(event.index) < len(results):
            return gr.skip(), gr.skip()
        result = results[int(event.index)]
        return str(result.path), markup.facts(result.facts())

    def side_by_side(self, numbers: Sequence[int], request: gr.Request) -> tuple[Any, str]:
        """Show videos next to each other."""
        chosen = [each for each in self._visit(request).results if each.number in numbers]
        try:
            return gr.update(value=str(self.studio.gallery.side_by_side(chosen)), visible=True), ""
        except ValueError as error:
            return gr.skip(), markup.notice(f"{error}.")

    def leave(self, request: gr.Request) -> None:
        """Forget a visitor who closed the page."""
        self.visits.leave(str(request.session_hash))

    def _visit(self, request: gr.Request) -> Visit:
        return self.visits.of(str(request.session_hash))


def _picture_of(visit: Visit) -> Any:
    return None if visit.subject is None else visit.subject.picture


def _groups(kind: str) -> list[Any]:
    return [gr.update(visible=kind == name) for _, name in path_fields.KINDS]
