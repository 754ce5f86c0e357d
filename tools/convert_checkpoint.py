"""Convert released weights to our names and back without loss, or write a run's whole model as one file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from cami2v.checkpoints.convert import WeightsOut, left_overs, released_layout, to_ours, to_released
from cami2v.checkpoints.load import find_weights, read_metadata
from cami2v.checkpoints.named_weights import FULL_WEIGHTS
from cami2v.training.run_folder import RunFolder
from launch.compose import read_config
from launch.load_model import Source, load_model
from launch.starting_point import is_run, paths_of, run_of, starting_point

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

EPILOG = """
to-ours keeps what our models do not use (schedule tables, parts of CLIP) under released_unused., so that
released -> ours -> released gives the same names, shapes, dtypes and bits. Nothing is pickled code when read: names and
numbers only. Commands hold one tensor in memory at a time, except export, which holds the model.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one conversion; 2 and one line on stderr for what a user got wrong."""
    try:
        options = _parser().parse_args(arguments)
        target: Path = options.target
        if target.exists() and not options.force:
            raise ValueError(f"{target}: exists already; choose another name, or overwrite it with --force")
        if not target.parent.is_dir():
            raise ValueError(f"{target.parent}: there is no such folder")
        out = _weights(options)
        out.write(target)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    size = sum(torch.Size(shape).numel() * dtype.itemsize for dtype, shape in out.tensors.values())
    print(f"{target}: {len(out.tensors)} tensors, {size / 1e9:.2f} GB")
    return 0


def _weights(options: argparse.Namespace) -> WeightsOut:
    if options.command == "export":
        return export(options.source, released=options.released_names, base=options.base, dtype=DTYPES[options.dtype])
    sources = paths_of(options.source)
    if any(source.exists() and options.target.exists() and source.samefile(options.target) for source in sources):
        raise ValueError(f"{options.target}: is the source itself")
    if options.command == "to-ours":
        if options.target.suffix != ".safetensors":
            raise ValueError(f"{options.target}: our files are .safetensors files, choose such a name")
        return to_ours(sources)
    if len(sources) != 1:
        raise ValueError(f"{options.source}: expected one file under our names, as to-ours and export write")
    return to_released(sources[0])


def export(run: str, *, released: bool, base: str | None, dtype: torch.dtype) -> WeightsOut:
    """Return the whole model of a run: the frozen weights it started from and the trained ones of its last checkpoint.

    With the left-overs of a released base, if it started from one. Raises ValueError where `run` is none, for a base
    that is not the one it was trained on, and for released names of a model that never was released.
    """
    path = Path(run).expanduser()
    if not path.exists() or not is_run(path):
        raise ValueError(f"{run}: no run folder there (a folder with config.yaml, as `cami2v train` writes)")
    source = Source(
        checkpoint=run, from_experiment=None, overrides=[], base=base, load_report=None, attention=None,
        weights="trained",
    )  # fmt: skip
    parameters = dict(load_model(source).model.named_parameters())
    spare = left_overs(_released_base(path, base))
    ours = {name: (dtype, tuple(value.shape)) for name, value in parameters.items()}
    ours |= {n: (each.archive.tensors[s].dtype, each.archive.tensors[s].shape) for n, (each, s) in spare.items()}
    layout = released_layout(ours) if released else {name: (name, shape) for name, (_, shape) in ours.items()}
    by_new_name = {new: name for name, (new, _) in layout.items()}

    def read(new: str) -> Tensor:
        name = by_new_name[new]
        if name in spare:
            weights, stored = spare[name]
            return weights.archive.read(stored)
        return parameters[name].detach().to("cpu", dtype).reshape(layout[name][1])

    return WeightsOut(
        read=read,
        tensors={new: (ours[name][0], layout[name][1]) for new, name in by_new_name.items()},
        metadata=_provenance(path) if not released else {},
    )


def _released_base(path: Path, base: str | None) -> Sequence[Path]:
    run = run_of(path)
    given = base if base is not None or run is None else read_config(RunFolder(run).config).get("init_from")
    return starting_point(given, key="init_from", resuming=True).released


def _provenance(path: Path) -> dict[str, str]:
    """Return what the run's weights say of their origin; without the fingerprint, which is of the base alone."""
    metadata = read_metadata(find_weights(path))
    metadata.pop("base_fingerprint", None)
    return {**metadata, "format": FULL_WEIGHTS, "run": path.name}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.convert_checkpoint", description=__doc__, epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="to-ours | to-released | export")
    ours = commands.add_parser("to-ours", help="released file, or base,delta -> one safetensors under our names")
    ours.add_argument("source", metavar="SOURCE[,DELTA]", help="weights files or DeepSpeed folders; the delta wins")
    back = commands.add_parser("to-released", help="such a file -> released names, .safetensors or .pt")
    back.add_argument("source", metavar="OURS", help="a file that to-ours or export wrote")
    whole = commands.add_parser("export", help="a run folder of any engine -> one file with base and trained weights")
    whole.add_argument("source", metavar="RUN", help="a run folder, or one of its checkpoint folders")
    whole.add_argument("--released-names", action="store_true", help="write released names (.safetensors or .pt)")
    whole.add_argument("--base", help="where the released base of the run is now, if it has moved")
    whole.add_argument("--dtype", choices=list(DTYPES), default="fp32", help="of the weights (default: fp32)")
    for command in (ours, back, whole):
        command.add_argument("target", metavar="OUT", type=Path, help="the file to write")
        command.add_argument("--force", action="store_true", help="overwrite it if it exists")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
