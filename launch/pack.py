"""`cami2v pack`: posed videos (or the synthetic world) -> shards."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from data_pipeline.pack import PackResult, PackSettings, pack
from data_pipeline.parallel import default_processes, progress_bar
from data_pipeline.synthetic.world import SyntheticWorld
from data_pipeline.synthetic.write import write_raw_dataset
from launch.compose import entry, instantiate_part, settings

SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where clips come from and shards go."""

    source: str
    output: str | None
    raw: str


def run(config: DictConfig) -> None:
    """Pack, and say what was packed, what was left out and why."""
    places = Places(source=str(config.source), output=config.output, raw=str(config.raw))
    options = settings(config.pack, PackSettings, "pack")
    synthetic = places.source == SYNTHETIC
    source = Path(places.raw if synthetic else places.source).expanduser()
    name = SYNTHETIC if synthetic else source.resolve().name
    output = Path(places.output).expanduser() if places.output else Path("data", "shards", name)
    generator: dict[str, object] = {"source": name}
    if synthetic:
        options = _in_one_task(options)
        world: SyntheticWorld = instantiate_part(config.world, "world")
        _render(source, world, options.processes)
        generator["world"] = world.settings()
    result = pack(source, output, options, generator=generator, progress=True)
    for line in _summary(result):
        print(line)


def _in_one_task(options: PackSettings) -> PackSettings:
    """Leave a job array aside: tasks that render one folder at once would stand in each other's way."""
    if options.tasks is not None and options.tasks > 1:
        raise ValueError(
            f"pack.tasks={options.tasks}: source=synthetic is rendered and packed in one task; "
            "give a rendered folder as source=<folder> to share the packing"
        )
    return replace(options, task=None, tasks=1)


def _render(folder: Path, world: SyntheticWorld, processes: int | None) -> None:
    with progress_bar(None, what="render", unit="frame", total=0, show=True) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        write_raw_dataset(folder, world, processes or default_processes(), show)


def _summary(result: PackResult) -> list[str]:
    lines = ["already packed: equal clips and settings"] if result.report is None else result.report.lines()
    if result.manifest is None:
        missing = f"{result.shards_missing} shards of other tasks are not finished; the last task completes the set"
        return [f"{result.folder}: this task's shards are packed, {missing}"]
    for name, split in result.manifest.splits.items():
        size = sum(shard.bytes for shard in split.shards) / 2**20
        of = f"{len(split.sources)} source videos in {len(split.shards)} shards"
        lines.append(f"{name}: {split.samples} clips of {of}, {size:.1f} MiB")
    return [*lines, f"shards: {result.folder}  (train on them: cami2v train data={result.folder})"]


main = entry("pack")(run)

if __name__ == "__main__":
    main()
