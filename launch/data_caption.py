"""`cami2v data caption`: captions for a folder of posed videos, published ones or from a vision-language model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from cami2v.inference.captioner import Captioner, CaptionerSettings
from data_pipeline.array_tasks import Share, share_of
from data_pipeline.captions.journal import FILE_NAME
from data_pipeline.captions.published import FILE_NAME as PUBLISHED_NAME
from data_pipeline.captions.published import convert_captions
from data_pipeline.captions.run import CaptionSettings, caption_clips
from data_pipeline.captions.shown_frames import ShownClip
from data_pipeline.layouts.clip import ReadSettings, SourceFolder
from data_pipeline.layouts.detect import open_source
from data_pipeline.manifest import FILE_NAME as MANIFEST_NAME
from launch.compose import entry, settings


def run(config: DictConfig) -> None:
    """Convert or caption, and say what came of it; exit code 1 if no clip has a caption then."""
    options = settings(config.caption, CaptionSettings, "caption")
    captioner = settings(config.captioner, CaptionerSettings, "captioner")
    reading = settings(config.reading, ReadSettings, "reading")
    source = Path(str(config.source)).expanduser()
    if (source / MANIFEST_NAME).is_file():
        raise ValueError(
            f"source={source}: is a shard set, whose captions are inside; caption the folder that it was packed from, "
            "then pack it again"
        )
    share = share_of(options.task, options.tasks, settings="caption")
    folder = open_source(source, reading)
    output = Path(str(config.output)).expanduser() if config.output else source
    if config.captions:
        given = [config.captions] if isinstance(config.captions, str) else list(config.captions)
        _convert([Path(str(each)).expanduser() for each in given], folder, output)
    else:
        _caption(folder, output, options, captioner, share)


def _convert(paths: list[Path], folder: SourceFolder, output: Path) -> None:
    print("\n".join(convert_captions(paths, folder.clips, output).lines()))
    print(_next_step(output / PUBLISHED_NAME, folder.folder))


def _caption(
    folder: SourceFolder, output: Path, options: CaptionSettings, settings: CaptionerSettings, share: Share
) -> None:
    captioner = Captioner(settings)

    def describe(clips: Sequence[ShownClip]) -> list[str]:
        if settings.temperature == 0:
            return captioner.describe([clip.frames for clip in clips])
        # One by one: what is drawn for a clip must not depend on the clips beside it.
        return [captioner.describe([clip.frames], seed=_seed(settings.seed, clip.clip_id))[0] for clip in clips]

    made_with = captioner.provenance()
    report = caption_clips(folder.clips, output, options, share, made_with, describe, progress=True)
    print("\n".join(report.lines()))
    if report.published:
        print(_next_step(output / FILE_NAME, folder.folder))
    if not report.captioned:
        raise SystemExit(1)


def _seed(seed: int, clip_id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {clip_id}".encode()).digest()[:6], "big")


def _next_step(path: Path, source: Path) -> str:
    here = path.parent.resolve() == source.resolve()
    return f"captions: {path}" + (
        f"  (cami2v pack source={source})" if here else f"  (put it into {source} to pack it)"
    )


main = entry("data_caption")(run)

if __name__ == "__main__":
    main()
