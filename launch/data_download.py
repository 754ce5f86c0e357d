"""`cami2v data download`: the source videos of a camera list -> a folder of videos."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.download.download import DownloadSettings, download
from data_pipeline.download.status import FILE_NAME
from launch.compose import entry, settings


def run(config: DictConfig) -> None:
    """Download, and say what came, what did not and why; exit code 1 if nothing at all is there."""
    options = settings(config.download, DownloadSettings, "download")
    output = Path(str(config.output)).expanduser()
    try:
        report = download(Path(str(config.cameras)).expanduser(), output, options, progress=True)
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None
    for line in report.lines():
        print(line)
    print(f"each video's result: {output / FILE_NAME}")
    if not report.there:
        raise SystemExit(1)


main = entry("data_download")(run)

if __name__ == "__main__":
    main()
