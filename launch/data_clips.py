"""`cami2v data clips`: source videos and camera files -> a raw folder of cut clips."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.clips.clips import ClipsSettings, cut_clips
from launch.compose import entry, settings


def run(config: DictConfig) -> None:
    """Cut, and say what is there, what is not and why; exit code 1 if nothing at all is there."""
    options = settings(config.clips, ClipsSettings, "clips")
    videos, cameras, output = (
        Path(str(value)).expanduser() for value in (config.videos, config.cameras, config.output)
    )
    report = cut_clips(videos, cameras, output, options, progress=True)
    for line in report.lines():
        print(line)
    print(f"every clip: {report.path}  (pack them: cami2v pack source={output})")
    if report.results and not report.there:
        raise SystemExit(1)


main = entry("data_clips")(run)

if __name__ == "__main__":
    main()
