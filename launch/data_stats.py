"""`cami2v data stats`: motion, lengths, captions and scales of a shard set or a folder of posed videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.statistics.run import summarise
from data_pipeline.validate.visit import RemoteReading
from launch.compose import entry, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSettings:
    """How the clips are measured."""

    processes: int | None
    """None: one for each core this process may use."""

    def validate(self) -> None:
        """Raise ValueError for values out of range."""
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"stats.processes={self.processes}: must be at least 1")


def run(config: DictConfig) -> None:
    """Print the table; write stats.json and stats.png."""
    options = settings(config.stats, StatsSettings, "stats")
    reading = settings(config.reading, ReadSettings, "reading")
    remote = settings(config.remote, RemoteReading, "remote")
    source = remote.open(str(config.source))
    name = Path(source.name).expanduser().resolve().name
    output = Path(str(config.output)).expanduser() if config.output else Path("data", "stats", name)
    summary = summarise(source, reading, options.processes, keep_shards=remote.keep_shards, progress=True)
    summary.write(output)
    print("\n".join(summary.lines()))
    print(f"histograms: {output / 'stats.png'}, numbers: {output / 'stats.json'}")


main = entry("data_stats")(run)

if __name__ == "__main__":
    main()
