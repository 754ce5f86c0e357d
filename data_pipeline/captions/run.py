"""Caption the clips of a folder of posed videos that have no caption; the words come from the caller."""

from __future__ import annotations

import functools
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from data_pipeline.array_tasks import Share
from data_pipeline.captions.journal import Caption, Journal, publish, read_journals
from data_pipeline.captions.shown_frames import ALREADY, FrameChoice, NotShown, ShownClip, show
from data_pipeline.clips.record import write_whole
from data_pipeline.layouts.clip import PosedClip
from data_pipeline.parallel import default_processes, progress_bar, workers

logger = logging.getLogger(__name__)

REPORT_NAME = "caption_report.json"
EMPTY = "empty_caption"
NOT_DESCRIBED = "not_described"

Describe = Callable[[Sequence[ShownClip]], list[str]]
"""Says a text for each of some clips of equally many frames; raises ValueError where it cannot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionSettings:
    """Which clips, and how many at once."""

    show: FrameChoice
    batch: int
    """Clips that the model sees at once."""
    redo: bool
    """Make captions of this command with another model or other settings anew."""
    limit: int | None
    """At most this many captions are made."""
    processes: int | None
    """That read frames; None: one for each core this process may use."""
    task: int | None
    """This run does share number `task`, from 0, of `tasks`; None: as Slurm's job array says, otherwise all."""
    tasks: int | None

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        self.show.validate()
        for key, low in (("batch", 1), ("limit", 1), ("processes", 1)):
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"caption.{key}={value}: must be at least {low}")


@dataclass(slots=True, kw_only=True)
class CaptionReport:
    """What became of the clips of one task."""

    clips: int = 0
    made: int = 0
    kept: int = 0
    """Made by an earlier run."""
    had: int = 0
    """With a caption from elsewhere."""
    failed: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Messages by reason and clip."""
    published: int = 0
    """Captions in captions-generated.json, of all tasks."""

    @property
    def captioned(self) -> int:
        """Clips that have a caption now."""
        return self.made + self.kept + self.had

    def lines(self) -> list[str]:
        """Say it in a few lines."""
        lines = [
            f"{self.clips} clips: {self.made} captioned now, {self.kept} by an earlier run, {self.had} had a caption"
        ]
        for reason, messages in sorted(self.failed.items()):
            first = next(iter(messages.values()))
            lines.append(f"  {reason}: {len(messages)}, first: {first}")
        return lines

    def write(self, path: Path, made_with: Mapping[str, Any]) -> None:
        """Write everything as JSON."""
        content = {
            "clips": self.clips,
            "captioned_now": self.made,
            "captioned_by_an_earlier_run": self.kept,
            "had_a_caption": self.had,
            "failed_by_reason": {reason: dict(sorted(each.items())) for reason, each in sorted(self.failed.items())},
            "made_with": dict(made_with),
        }
        write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def caption_clips(
    clips: Sequence[PosedClip],
    output: Path,
    settings: CaptionSettings,
    share: Share,
    made_with: Mapping[str, Any],
    describe: Describe,
    *,
    progress: bool,
) -> CaptionReport:
    """Caption what has no caption, a few clips at a time, and write captions-generated.json and the report.

    Killed at any moment, the same call goes on where it was. A clip that cannot be read or described is reported and
    does not stop the others. Raises ValueError where another run works on the same share.
    """
    settings.validate()
    mine = share.of(sorted(clips, key=lambda clip: (clip.address, clip.clip_id)))
    made_with = {**made_with, "show": {"frames": settings.show.frames, "long_side": settings.show.long_side}}
    report = CaptionReport(clips=len(mine))
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(output, share))
        # Also after an interruption, so that what was made is of use.
        stack.callback(lambda: setattr(report, "published", publish(output, made_with)))
        todo = _missing(mine, read_journals(output, made_with), made_with, settings.redo, report)
        run = stack.enter_context(workers(settings.processes or default_processes()))
        shown = run(functools.partial(show, choice=settings.show), todo)
        bar = progress_bar(shown, what="caption", unit="clip", total=len(todo), show=progress)
        for batch in _batches(_readable(iter(bar), report), settings.batch, settings.limit):
            captions = _described(batch, describe, made_with, report)
            journal.add(captions)
            report.made += len(captions)
    name = REPORT_NAME if share.tasks == 1 else f"caption_report-{share.task}-of-{share.tasks}.json"
    report.write(output / name, made_with)
    return report


def _missing(
    clips: Sequence[PosedClip],
    made: Mapping[str, Caption],
    made_with: Mapping[str, Any],
    redo: bool,
    report: CaptionReport,
) -> list[PosedClip]:
    todo = []
    for clip in clips:
        earlier = made.get(clip.clip_id)
        if earlier is not None and not (redo and earlier.made_with != made_with):
            report.kept += 1
        elif earlier is None and clip.captions:
            report.had += 1
        else:
            todo.append(clip)
    return todo


def _readable(shown: Iterator[ShownClip | NotShown], report: CaptionReport) -> Iterator[ShownClip]:
    for clip in shown:
        if isinstance(clip, ShownClip):
            yield clip
        elif clip.reason == ALREADY:
            report.had += 1
        else:
            report.failed[clip.reason][clip.clip_id] = clip.message


def _batches(clips: Iterator[ShownClip], size: int, limit: int | None) -> Iterator[list[ShownClip]]:
    """Group clips of equally many frames that follow each other."""
    batch: list[ShownClip] = []
    for clip in islice(clips, limit):
        if batch and (len(batch) == size or len(clip.frame_numbers) != len(batch[0].frame_numbers)):
            yield batch
            batch = []
        batch.append(clip)
    if batch:
        yield batch


def _described(
    batch: list[ShownClip], describe: Describe, made_with: Mapping[str, Any], report: CaptionReport
) -> list[Caption]:
    try:
        texts = describe(batch)
    except ValueError as error:
        if len(batch) == 1:
            report.failed[NOT_DESCRIBED][batch[0].clip_id] = " ".join(str(error).split())
            return []
        logger.warning("%d clips at once failed (%s); one by one", len(batch), error)
        return [caption for clip in batch for caption in _described([clip], describe, made_with, report)]
    captions = []
    for clip, text in zip(batch, texts, strict=True):
        if not text.strip():
            report.failed[EMPTY][clip.clip_id] = f"clip {clip.clip_id}: the model said nothing"
            continue
        captions.append(
            Caption(clip=clip.clip_id, caption=text.strip(), frames=clip.frame_numbers, made_with=made_with)
        )
    return captions
