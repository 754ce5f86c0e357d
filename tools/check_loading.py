"""Show that a released-style checkpoint loads strictly and within memory, and that each seeded fault is refused.

Writes a file of random fp16 weights with the names and shapes of a manifest (Lightning wrapper), loads it in a process
of its own, compares every value, and measures that process's peak memory.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cami2v.checkpoints.diagnosis import CAMERA, IMAGE_SCALE
from cami2v.checkpoints.load_released import load_released, match_released
from cami2v.checkpoints.released_names import our_names, released_names
from cami2v.checkpoints.report import RefusedWeightsError
from cami2v.checkpoints.write_torch import write_torch
from cami2v.model import VideoDiffusion
from launch.build import build_model, build_skeleton
from launch.compose import compose_config

GIGABYTE = 1e9
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that must be refused, and the key the refusal must name."""

    what: str
    shapes: Shapes
    key: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if anything is not as it should be, 2 for a wrong argument."""
    options = _parser().parse_args(arguments)
    try:
        if options.load is not None:
            print(json.dumps(measure(options.load, options.experiment, options.override)))
            return 0
        entries, experiment = read_manifest(options.manifest, options.experiment)
        with tempfile.TemporaryDirectory(dir=options.scratch, prefix="check-loading-") as scratch:
            folder = options.keep or Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            refused = check_faults(entries, experiment, options.override, Path(scratch))
            loaded = check_whole(entries, experiment, options.override, folder, options.allow)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if refused and loaded else 1


def read_manifest(path: Path, experiment: str | None) -> tuple[Shapes, str]:
    """Return names and shapes, and the experiment they belong to (from the manifest's name unless given)."""
    try:
        with gzip.open(path, "rt") as file:
            manifest: dict[str, Any] = json.load(file)
        shapes = {entry["name"]: tuple(entry["shape"]) for entry in manifest["entries"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a readable manifest ({' '.join(str(error).split())})") from error
    if experiment is None:
        named = re.search(r"\d+_([a-z0-9-]+?)_(?:.*_)?(256x256|512x320)", str(manifest.get("config", path.name)))
        if named is None:
            raise ValueError(f"{path}: its name does not tell the experiment; give --experiment")
        experiment = f"{named[1].replace('-', '_')}_{named[2][:3]}"
    return shapes, experiment


def check_faults(shapes: Shapes, experiment: str, overrides: Sequence[str], folder: Path) -> bool:
    """Write each fault as a file of true names and shapes (all numbers shared) and see it refused."""
    skeleton = build_skeleton(compose_config("train", [f"experiment={experiment}", *overrides]))
    print(f"{'seeded fault':<28} {'verdict':<10} what the error says")
    passed = True
    for fault in seeded_faults(shapes, skeleton):
        path = folder / "fault.ckpt"
        one = torch.zeros((), dtype=torch.float16)
        torch.save({"state_dict": {name: one.expand(shape) for name, shape in fault.shapes.items()}}, path)
        try:
            match_released([path], skeleton)
            said, good = "loaded without a word", False
        except RefusedWeightsError as error:
            said = str(error).replace(f"{path}: ", "")
            good = fault.key in said
        passed &= good
        print(f"{fault.what:<28} {'refused' if good else 'NOT SEEN':<10} {said}")
    return passed


def seeded_faults(shapes: Shapes, skeleton: VideoDiffusion) -> Iterator[Fault]:
    """Yield the faults that a checkpoint of this model can have."""
    ours = our_names(shapes).ours
    name = next(released for released, our in ours.items() if our.startswith("backbone.") and len(shapes[released]) > 1)
    renamed = {f"{n}_renamed" if n == name else n: shape for n, shape in shapes.items()}
    yield Fault(what="one key renamed", shapes=renamed, key=f"{name}_renamed")
    wrong = (shapes[name][0] + 1, *shapes[name][1:])
    yield Fault(what="one shape wrong", shapes=shapes | {name: wrong}, key=f"{name} has shape {wrong}")
    camera = [released for released, our in ours.items() if CAMERA.fullmatch(our)]
    if camera:
        bare = {n: shape for n, shape in shapes.items() if n not in camera}
        absent = [released_name(n, skeleton) for n, _ in skeleton.named_parameters() if CAMERA.fullmatch(n)]
        yield Fault(what="camera keys absent", shapes=bare, key=absent[0])
    scales = [released for released, our in ours.items() if our.endswith(IMAGE_SCALE)]
    if scales:
        other = {n: shape for n, shape in shapes.items() if n not in scales}
        yield Fault(what="wrong base (512 for 256)", shapes=other, key=scales[0])
    else:
        attentions = [our for our in ours.values() if our.endswith(".cross_attention.to_text_key.weight")]
        scales = [released_name(our.replace(".to_text_key.weight", IMAGE_SCALE), skeleton) for our in attentions]
        yield Fault(what="wrong base (256 for 512)", shapes=shapes | dict.fromkeys(scales, ()), key=scales[0])


def released_name(our_name: str, skeleton: VideoDiffusion) -> str:
    """Return the released name of one parameter, which depends on the model around it."""
    return released_names([*(n for n, _ in skeleton.named_parameters()), our_name])[our_name]


def check_whole(shapes: Shapes, experiment: str, overrides: Sequence[str], folder: Path, allowed: float) -> bool:
    """Write the whole file, load it in a process of its own and compare that process's peak with the model."""
    path, started = folder / "model.ckpt", time.monotonic()
    values = random_values()
    tensors = {name: (torch.float16, shape) for name, shape in shapes.items()}
    write_torch(path, tensors, lambda name: values(name, shapes[name]), "state_dict")
    print(f"\nwrote {path}: {path.stat().st_size / GIGABYTE:.2f} GB in {time.monotonic() - started:.0f} s", flush=True)
    command = [sys.executable, "-m", "tools.check_loading", "-", "--load", str(path), "--experiment", experiment]
    command += [item for override in overrides for item in ("--override", override)]
    child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if child.returncode:
        print(f"loading failed with exit code {child.returncode}")
        return False
    found = json.loads(child.stdout.splitlines()[-1])
    limit = found["model"] + allowed * GIGABYTE
    sizes = {key: f"{found[key] / GIGABYTE:.2f} GB" for key in ("model", "built", "peak", "added")}
    rows = {
        "parameters": f"{found['loaded']} of {found['parameters']} loaded, {found['different']} differ from the file",
        "model": sizes["model"],
        "peak once built": f"{sizes['built']} after {found['build_seconds']:.0f} s",
        "peak once loaded": f"{sizes['peak']} after {found['load_seconds']:.0f} s (limit {limit / GIGABYTE:.2f} GB)",
        "added by loading": sizes["added"],
    }
    print("\n".join(f"{name:<18} {text}" for name, text in rows.items()))
    return bool(found["peak"] < limit and not found["different"] and found["loaded"] == found["parameters"])


def measure(path: Path, experiment: str, overrides: Sequence[str]) -> dict[str, float]:
    """Build the model and load the file in this process; return sizes and peaks in bytes."""
    started = time.monotonic()
    model = build_model(compose_config("train", [f"experiment={experiment}", *overrides]))
    built, resident, build_seconds = memory("VmHWM"), memory("VmRSS"), time.monotonic() - started
    report = load_released([path], model)
    peak, load_seconds = memory("VmHWM"), time.monotonic() - started - build_seconds
    print(report.summary(), file=sys.stderr)
    parameters = dict(model.named_parameters())
    values, different = random_values(), 0
    for name, match in report.matched.items():
        expected = values(match.stored, tuple(parameters[name].shape)).float()
        different += not torch.equal(parameters[name].detach(), expected)
    return {
        "loaded": len(report.matched), "parameters": len(parameters), "different": different,
        "model": sum(value.numel() * value.element_size() for value in [*model.parameters(), *model.buffers()]),
        "built": built, "peak": peak, "added": peak - resident,
        "build_seconds": build_seconds, "load_seconds": load_seconds,
    }  # fmt: skip


def random_values() -> Callable[[str, tuple[int, ...]], Tensor]:
    """Return a function from name and shape to numbers: one random block, read from a place of the name's own."""
    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).half()

    def values(name: str, shape: tuple[int, ...]) -> Tensor:
        count = torch.Size(shape).numel()
        start = zlib.crc32(name.encode()) % len(block)
        copies = -(-(start + count) // len(block))
        return block.repeat(copies)[start : start + count].reshape(shape)

    return values


def memory(field: str) -> float:
    """Read a figure of this process from the kernel, in bytes: VmHWM (peak resident) or VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.check_loading", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path, help="<name>.json.gz with the names and shapes of a released model")
    parser.add_argument("--experiment", help="whose model to build; default: told from the manifest's name")
    parser.add_argument("--override", action="append", default=[], metavar="KEY=VALUE", help="of that experiment")
    parser.add_argument("--scratch", type=Path, default=os.environ.get("TMPDIR"), help="folder with room for the file")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the file there and leave it")
    parser.add_argument("--allow", type=float, default=2.0, metavar="GB", help="peak above the model (default: 2)")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
