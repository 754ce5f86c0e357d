"""`cami2v data validate`: look for what is wrong with a shard set or a folder of posed videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.validate.clip import ClipOptions
from data_pipeline.validate.run import validate
from data_pipeline.validate.visit import RemoteReading
from launch.compose import entry, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What is validated, and where the report goes."""

    source: str
    report: str | None
    strict: bool


def run(config: DictConfig) -> None:
    """Print the findings; exit code 1 if there are errors, or warnings with strict=true."""
    places = Places(source=str(config.source), report=config.report, strict=bool(config.strict))
    options = settings(config.validate, ClipOptions, "validate")
    reading = settings(config.reading, ReadSettings, "reading")
    remote = settings(config.remote, RemoteReading, "remote")
    source = remote.open(places.source)
    report = validate(source, options, reading, keep_shards=remote.keep_shards, progress=True)
    print("\n".join(report.lines()))
    if places.report:
        report.write(Path(places.report).expanduser())
        print(f"all findings: {places.report}")
    if code := report.exit_code(strict=places.strict):
        raise SystemExit(code)


main = entry("data_validate")(run)

if __name__ == "__main__":
    main()
