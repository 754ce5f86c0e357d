"""Put one fault into a clean shard set, everything else kept consistent."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.index import read_index, read_sample
from data_pipeline.shard_writer import write_shard

About = dict[str, Any]
Arrays = dict[str, np.ndarray]
Change = Callable[[About, Arrays], None]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(content))


def first_shard(folder: Path, split: str = "train") -> Path:
    return folder / manifest(folder)["splits"][split]["shards"][0]["name"]


def members_of(shard: Path) -> list[tuple[str, dict[str, bytes]]]:
    return [(sample.key, read_sample(shard, sample)) for sample in read_index(shard)]


def put(folder: Path, shard: Path, samples: list[tuple[str, dict[str, bytes]]]) -> None:
    """Write a shard again and note its checksums everywhere."""
    counted = [(key, json.loads(members["json"])["packed"]["frames"], members) for key, members in samples]
    entry = write_shard(shard, counted)
    content = manifest(folder)
    for split in content["splits"].values():
        for listed in split["shards"]:
            if listed["name"] == shard.name:
                listed.update(samples=entry.samples, bytes=entry.bytes, sha256=entry.sha256)
        split["samples"] = sum(listed["samples"] for listed in split["shards"])
    write_manifest(folder, content)


def change_clip(folder: Path, change: Change, *, split: str = "train", mp4: bytes | None = None) -> str:
    """Change the first clip of a split's first shard; return its id."""
    shard = first_shard(folder, split)
    samples = members_of(shard)
    key, members = samples[0]
    about = json.loads(members["json"])
    with np.load(io.BytesIO(members["cameras.npz"])) as file:
        arrays = {name: file[name].copy() for name in file.files}
    change(about, arrays)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    members = {"mp4": members["mp4"] if mp4 is None else mp4, "cameras.npz": buffer.getvalue()}
    about["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    samples[0] = (key, {**members, "json": json.dumps(about).encode()})
    put(folder, shard, samples)
    return key
