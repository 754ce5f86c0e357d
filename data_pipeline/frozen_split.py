"""One split of a shard set as a small file: to publish with a paper, and to hold sets against (docs/data-format.md)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipeline.index import read_index
from data_pipeline.manifest import INTRINSICS_CONVENTION, POSE_CONVENTION, Manifest, ShardEntry, read_manifest

FORMAT = "cami2v-frozen-split"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenSplit:
    """What is in a split, to the byte."""

    path: Path
    split: str
    clips: tuple[str, ...]
    """In the order of the shards: that of an evaluation."""
    sources: tuple[str, ...]
    shards: tuple[ShardEntry, ...]

    def check(self, manifest: Manifest, split: str, where: str) -> None:
        """Hold the split that is going to be read against this one.

        Raises ValueError where it has the same name and other shards, or another name and a source video of these.
        """
        found = manifest.split(split, where)
        if split == self.split:
            theirs, ours = found.shards, self.shards
            wrong = [f"has {len(theirs)} shards, expected {len(ours)}"] if len(theirs) != len(ours) else []
            wrong += [
                f"{left.name} has sha256 {left.sha256[:12]}..., expected {right.sha256[:12]}... ({right.name})"
                for left, right in zip(theirs, ours, strict=False)
                if left.sha256 != right.sha256
            ]
            if wrong:
                raise ValueError(
                    f"data.frozen_split={self.path}: {where} holds another split {split}: it {wrong[0]}; get "
                    "the shards that were published, or evaluate without data.frozen_split and say so"
                )
        elif shared := sorted(set(found.sources) & set(self.sources)):
            raise ValueError(
                f"data.frozen_split={self.path}: split {split} of {where} has {len(shared)} source videos of the "
                f"frozen split {self.split} ({', '.join(shared[:3])}); pack it again with "
                f"pack.split_lists.{self.split}={self.path}, which keeps them out"
            )


def freeze(folder: Path, split: str, path: Path) -> FrozenSplit:
    """Describe a split of a set on this machine, after checking every shard against the manifest.

    Raises ValueError for a split that is not there, and a shard that is missing or differs.
    """
    found = read_manifest(folder).split(split, str(folder))
    clips: list[str] = []
    for entry in found.shards:
        if not entry.matches(folder / entry.name):
            raise ValueError(f"{folder / entry.name}: missing, or not the manifest's shard; copy it or pack it again")
        clips += [sample.key for sample in read_index(folder / entry.name)]
    return FrozenSplit(path=path, split=split, clips=tuple(clips), sources=found.sources, shards=found.shards)


def as_json(frozen: FrozenSplit) -> str:
    """Return the text of the file."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "split": frozen.split,
        "samples": len(frozen.clips),
        "pose_convention": POSE_CONVENTION,
        "intrinsics_convention": INTRINSICS_CONVENTION,
        "shards": [asdict(entry) for entry in frozen.shards],
        "sources": frozen.sources,
        "clips": frozen.clips,
    }
    return json.dumps(content, indent=1) + "\n"


def read_frozen_split(given: str, setting: str) -> FrozenSplit:
    """Read such a file; raises ValueError, naming the setting, for one that is missing or something else."""
    path = Path(given).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"format {content['format']}, version {content['version']}")
        return FrozenSplit(
            path=path,
            split=content["split"],
            clips=tuple(content["clips"]),
            sources=tuple(content["sources"]),
            shards=tuple(ShardEntry(**entry) for entry in content["shards"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{setting}={path}: not a frozen split ({type(error).__name__}: {error}); expected a file of "
            "python -m tools.freeze_split"
        ) from error
