"""How far samplers are from the converged solution, by their number of steps, on the same seeds.

`python -m tools.compare_samplers runs/demo/train` samples the run's first test clips with DDIM in many steps without
noise, which is the solution of the sampling ODE, and prints each sampler's relative L2 distance to it. Without a run,
`--random backbone=tiny diffusion=v_zero_snr ...` does the same with an untrained model whose parameters are all random.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cami2v.batch import ClipBatch
from cami2v.diffusion.ddim import DDIMSampler
from cami2v.diffusion.guidance import Guidance
from cami2v.diffusion.multistep import DPMSolverSampler, UniPCSampler
from cami2v.diffusion.sampler import Sampler
from cami2v.diffusion.steps import StepSpacing
from cami2v.draws import Draws
from cami2v.model import VideoDiffusion
from launch.build import build_model
from launch.compose import compose_config, instantiate_part
from launch.load_model import Source, held_out_data, load_model
from tools.orbit_clip import orbit_batch

COLUMNS = ("ddim", "ddim quad_trailing", "dpm_solver", "unipc", "dpm_solver uniform_trailing", "unipc uniform_trailing")


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_samplers", description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, help="a run folder of cami2v train")
    parser.add_argument("--random", nargs="+", metavar="KEY=VALUE", help="overrides of a config to fill with noise")
    parser.add_argument("--clips", type=int, default=4, help="of the run (default 4)")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 8, 10, 15, 25, 50], help="numbers of steps")
    parser.add_argument("--reference-steps", type=int, default=1000, help="DDIM steps of the solution (default 1000)")
    arguments = parser.parse_args()
    if (arguments.run is None) == (arguments.random is None):
        parser.error("give a run folder, or --random with overrides")
    try:
        chosen = _trained(arguments.run, arguments.clips) if arguments.run else _untrained(arguments.random)
        table = distances(*chosen, steps=arguments.steps, reference_steps=arguments.reference_steps)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    print(f"| steps | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for count, row in table.items():
        print(f"| {count} | {' | '.join(f'{row[name]:.4f}' for name in COLUMNS)} |")


@torch.no_grad()
def distances(
    model: VideoDiffusion, guidance: Guidance, batches: Sequence[ClipBatch], *, steps: list[int], reference_steps: int
) -> dict[int, dict[str, float]]:
    """Return |sample - solution| / |solution| by number of steps and sampler: L2 of latents, mean over the clips."""
    sums = {count: dict.fromkeys(COLUMNS, 0.0) for count in steps}
    for batch in batches:
        draws = Draws(batch.seeds, device=batch.video.device)
        predict, image_latents = model.denoiser(batch, draws)
        given: dict[str, Any] = {"schedule": model.schedule, "prediction": model.prediction, "draws": draws}
        given["shape"] = tuple(image_latents.shape[1:])
        solution = samplers(reference_steps, guidance)["ddim"].sample(predict, **given)
        for count in steps:
            for name, sampler in samplers(count, guidance).items():
                sums[count][name] += float(
                    (sampler.sample(predict, **given) - solution).norm() / solution.norm()
                ) / len(batches)
    return sums


def samplers(steps: int, guidance: Guidance) -> Mapping[str, Sampler]:
    """Make every sampler of the table."""

    def ddim(quad: bool) -> Sampler:
        spacing: StepSpacing = "quad_trailing" if quad else "uniform_trailing"
        return DDIMSampler(steps=steps, spacing=spacing, eta=0.0, temperature=1.0, guidance=guidance)

    made = [ddim(False), ddim(True)]
    spacings: tuple[StepSpacing, ...] = ("quad_trailing", "uniform_trailing")
    for spacing in spacings:
        made += [kind(steps=steps, spacing=spacing, guidance=guidance) for kind in (DPMSolverSampler, UniPCSampler)]
    return dict(zip(COLUMNS, made, strict=True))


def _trained(run: Path, clips: int) -> tuple[VideoDiffusion, Guidance, list[ClipBatch]]:
    loaded = load_model(
        Source(
            checkpoint=str(run), from_experiment=None, overrides=(), base=None, load_report=None, attention=None,
            weights="trained",
        )
    )  # fmt: skip
    loader = instantiate_part({**held_out_data(loaded.config), "split": "test"}, "data")
    device = next(loaded.model.parameters()).device
    batches = loader.fixed(count=clips, rank=0, world_size=1, seed=loaded.config.seed)
    return loaded.model, loaded.sampler.guidance, [batch.to(device) for batch in batches]


def _untrained(overrides: list[str]) -> tuple[VideoDiffusion, Guidance, list[ClipBatch]]:
    config = compose_config("train", overrides)
    model = build_model(config).eval()
    for part in (model.backbone, model.camera):
        _randomise(part)
    guidance = instantiate_part(config.sampler.guidance, "sampler.guidance")
    height, width = config.data.resolution
    return model, guidance, [orbit_batch(config.data.frames, (height, width))]


def _randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            scale = fan_in**-0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))


if __name__ == "__main__":
    main()
