"""`cami2v data view`: clips of a shard set or a folder of posed videos on one page."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.view.clip import ViewOptions
from data_pipeline.view.run import view
from data_pipeline.view.selection import Selection
from launch.compose import entry, settings


def run(config: DictConfig) -> None:
    """Write the page and say where it is."""
    selection = settings(config.select, Selection, "select")
    options = settings(config.view, ViewOptions, "view")
    reading = settings(config.reading, ReadSettings, "reading")
    source = Path(str(config.source)).expanduser()
    name = source.resolve().name
    page = Path(str(config.output)).expanduser() if config.output else Path("data", "view", f"{name}.html")
    result = view(source, page, selection, options, reading, progress=True)
    missing = f", {result.without_frames} of them without frames" if result.without_frames else ""
    print(f"{result.clips} clips{missing}, {result.findings} findings")
    print(f"page: {page} ({result.bytes / 2**20:.1f} MiB, needs no other file)")


main = entry("data_view")(run)

if __name__ == "__main__":
    main()
