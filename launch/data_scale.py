"""`cami2v data scale`: metric depth and the clips' own cameras -> metres per pose unit, for `cami2v pack`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.layouts.clip import ReadSettings
from data_pipeline.manifest import FILE_NAME as MANIFEST
from data_pipeline.metric_scale.depth import DepthSource, StoredDepthMaps
from data_pipeline.metric_scale.run import estimate_scales
from data_pipeline.metric_scale.settings import ScaleSettings
from data_pipeline.metric_scale.side_file import FILE_NAME
from launch.compose import entry, settings
from launch.depth_network import RANDOM, NetworkSettings, network_depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Which clips are scaled, and where the result goes."""

    source: str
    output: str | None
    depth_maps: str | None


def run(config: DictConfig) -> None:
    """Estimate, and say how many clips have a scale and why others have none; exit code 1 if none has."""
    places = Places(source=str(config.source), output=config.output, depth_maps=config.depth_maps)
    options = settings(config.scale, ScaleSettings, "scale")
    reading = settings(config.reading, ReadSettings, "reading")
    source = Path(places.source).expanduser()
    if not source.is_dir():
        raise ValueError(f"source={source}: no such folder; expected posed videos (docs/layouts.md) or a shard set")
    packed = (source / MANIFEST).is_file()
    beside = Path("data", "scale", source.resolve().name) if packed else source
    output = Path(places.output).expanduser() if places.output else beside / FILE_NAME
    if output.name != FILE_NAME:
        raise ValueError(f"output={output}: must end in {FILE_NAME}, the name that cami2v pack looks for")
    report = estimate_scales(source, output, options, reading, _depth(config, places), progress=True)
    print("\n".join([*report.lines(), f"every clip: {output}"]))
    if config.depth_weights == RANDOM and not places.depth_maps:
        print("the network is random: these numbers mean nothing")
    folder = "<the folder this set was packed from>" if packed else source
    copy = f"copy it to {folder}, then: " if output.parent.resolve() != source.resolve() else ""
    print(f"{copy}cami2v pack source={folder} pack.scale_policy=metric")
    if not report.scaled and not report.given:
        raise SystemExit(1)


def _depth(config: DictConfig, places: Places) -> DepthSource:
    if places.depth_maps:
        return StoredDepthMaps(Path(places.depth_maps).expanduser())
    node = {"depth_weights": config.depth_weights, "device": config.device}
    return network_depth(config.get("depth"), settings(node, NetworkSettings, "data_scale"))


main = entry("data_scale")(run)

if __name__ == "__main__":
    main()
