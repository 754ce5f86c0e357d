"""Compute a bad step's losses again, from what its run kept, and name where they stop being finite (docs/faults.md)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from cami2v.training.engine import Precision, autocast
from cami2v.training.fault_record import SUMMARY, MicroBatch, read_share
from launch.load_model import Source, load_model


def main() -> None:
    """Print a row per sample: the loss then, the loss now, and the first module whose output is not finite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fault", type=Path, help="<run>/faults/step-<n>")
    parser.add_argument("--checkpoint", type=Path, help="run folder or checkpoint (default: the run's last checkpoint)")
    given = parser.parse_args()
    shares = sorted(given.fault.glob("rank-*.pt"))
    if not (shares and (given.fault / SUMMARY).is_file()):
        parser.error(f"{given.fault}: has no {SUMMARY} and rank-<n>.pt; give a folder below <run>/faults")
    checkpoint = given.checkpoint or given.fault.parent.parent
    loaded = load_model(
        Source(
            checkpoint=str(checkpoint),
            from_experiment=None,
            overrides=(),
            base=None,
            load_report=None,
            attention=None,
            weights="trained",
        )
    )
    print(f"{'clip':<24}{'timestep':>9}{'loss then':>14}{'loss now':>14}  not finite first in")
    for share in shares:
        for kept in read_share(share):
            for row in replay(loaded.model.train(), kept, Precision(loaded.config.engine.precision)):
                print(row)


def replay(model: nn.Module, kept: MicroBatch, precision: Precision) -> Iterator[str]:
    """Yield a line per sample of a micro-batch. The model must be in training mode, for its dropout."""
    device = next(model.parameters()).device
    # As the engine does: every random number of a step follows from its samples.
    torch.manual_seed(int(kept.batch.seeds[0]) & (2**63 - 1))
    with torch.no_grad(), first_not_finite(model) as where, autocast(precision.autocast_dtype, device):
        now = model.forward(kept.batch.to(device)).loss_per_sample
    for clip, timestep, then, again in zip(
        kept.batch.clip_ids, kept.output.timesteps.tolist(), kept.output.loss_per_sample.tolist(), now.tolist(),
        strict=True,
    ):  # fmt: skip
        yield f"{clip:<24}{timestep:>9}{then:>14.6g}{again:>14.6g}  {where[0] if where else '-'}"


@contextmanager
def first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of modules whose output tensor is not finite, in the order they ran."""
    names: list[str] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.is_floating_point() and not output.isfinite().all():
                names.append(f"{name} ({type(module).__name__})")

        return module.register_forward_hook(look)

    handles = [watch(name, module) for name, module in model.named_modules() if name]
    try:
        yield names
    finally:
        for handle in handles:
            handle.remove()


if __name__ == "__main__":
    main()
