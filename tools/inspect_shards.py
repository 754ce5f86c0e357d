"""Show what is in a shard set: its manifest, and a table of its first samples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from cami2v.batch import RawClip
from cami2v.file_hash import file_sha256
from cami2v.geometry.pose_scale import ScalePolicy
from data_pipeline.index import read_index, read_sample
from data_pipeline.manifest import Manifest, Split, read_manifest
from data_pipeline.stages import parse_sample

COLUMNS = ("clip", "source", "frames", "size", "aspect", "fps", "fov", "turns", "path", "unit", "caption")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report; 1 if --verify found damage, 2 for a wrong argument."""
    options = _parser().parse_args(arguments)
    try:
        manifest = read_manifest(options.shards)
        names = [options.split] if options.split else sorted(manifest.splits)
        splits = {name: manifest.split(name, str(options.shards)) for name in names}
        print("\n".join(_summary(options.shards, manifest)))
        for name, split in splits.items():
            print("\n".join(("", *_table(options.shards, name, split, options.samples))))
        damage = list(_damage(options.shards, splits)) if options.verify else []
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.verify:
        print("\n" + ("\n".join(damage) if damage else "verified: every shard has the bytes the manifest says"))
    return 1 if damage else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.inspect_shards", description=__doc__)
    parser.add_argument("shards", type=Path, help="folder that has manifest.json")
    parser.add_argument("--split", help="only this split")
    parser.add_argument("--samples", type=int, default=10, help="rows per split (default 10)")
    parser.add_argument("--verify", action="store_true", help="read every shard and compare size and sha256")
    return parser


def _summary(folder: Path, manifest: Manifest) -> Iterator[str]:
    yield f"{folder}: {manifest.scale_policy} translations, seed {manifest.seed}"
    yield f"  frames     {', '.join(f'{key} {value}' for key, value in manifest.frame_format.items())}"
    yield f"  made by    {', '.join(f'{key} {value}' for key, value in manifest.generator.items())}"
    for name, split in sorted(manifest.splits.items()):
        size = sum(shard.bytes for shard in split.shards) / 2**20
        shortest = min((shard.shortest_clip_frames for shard in split.shards), default=0)
        yield (
            f"  {name:<10} {split.samples} clips from {len(split.sources)} sources in {len(split.shards)} shards,"
            f" {size:.1f} MiB, shortest clip {shortest} frames"
        )


def _table(folder: Path, name: str, split: Split, samples: int) -> Iterator[str]:
    rows = [COLUMNS, *(_row(clip) for clip in islice(_clips(folder, split), max(samples, 0)))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    yield f"{name}: {len(rows) - 1} of {split.samples}"
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row[:-1], widths, strict=True))
        yield "  ".join((*cells, row[-1])).rstrip()


def _clips(folder: Path, split: Split) -> Iterator[RawClip]:
    for shard in split.shards:
        path = folder / shard.name
        if not path.is_file():
            raise ValueError(f"{path}: the manifest lists this shard, but it is missing; copy or pack it again")
        for sample in read_index(path):
            members = read_sample(path, sample)
            yield parse_sample(members, scale_policy=ScalePolicy.RELATIVE, where=f"{path} sample {sample.key}")


def _row(clip: RawClip) -> tuple[str, ...]:
    rotation, translation = clip.world_to_camera[:, :, :3], clip.world_to_camera[:, :, 3]
    centres = -np.einsum("fij,fi->fj", rotation, translation)
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    turns = Rotation.from_matrix(rotation[1:] @ rotation[:-1].transpose(0, 2, 1)).magnitude()
    known = bool(np.any(clip.translation_scale != 1))
    field_of_view = np.degrees(2 * np.arctan(0.5 / clip.intrinsics_normalized[0, 0]))
    caption = clip.captions[0] if clip.captions else ""
    return (
        clip.clip_id,
        clip.source_id,
        str(len(centres)),
        f"{clip.width}x{clip.height}",
        f"{clip.pixel_aspect:.3f}",
        f"{clip.frames_per_second:.2f}",
        f"{field_of_view:.0f} deg",
        f"{np.degrees(turns.sum()):.1f} deg",
        f"{float((steps * clip.translation_scale[1:]).sum()):.3f}",
        "m" if known else "clip",
        caption if len(caption) <= 48 else f"{caption[:45]}...",
    )


def _damage(folder: Path, splits: dict[str, Split]) -> Iterator[str]:
    for split in splits.values():
        for shard in split.shards:
            path = folder / shard.name
            digest = file_sha256(path)
            if (size := path.stat().st_size) != shard.bytes:
                yield f"DAMAGED {path}: {size} bytes, the manifest says {shard.bytes}"
            elif digest != shard.sha256:
                yield f"DAMAGED {path}: sha256 {digest[:12]}..., the manifest says {shard.sha256[:12]}..."


if __name__ == "__main__":
    raise SystemExit(main())
