"""What epipolar attention costs: one layer, forward and backward, with the mask written out and with described bands.

Every measurement has a process of its own, so that one variant's memory never counts for another's; variants take
turns. The peak is of resident memory (CPU) or allocated memory (CUDA) above the layer's inputs. The mask written out
is made once per clip for all layers, so its time stands in a column of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch

from cami2v.attention.choice import Backend
from cami2v.attention.core import attend
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask, DenseMask
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions, fundamental_matrices
from cami2v.trajectories.presets import preset

VARIANTS: dict[str, tuple[str, ...]] = {"cpu": ("dense sdpa", "bands sdpa"), "cuda": ("dense sdpa", "bands flex")}
REFERENCE = "dense sdpa"
MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One attention layer of a backbone level, batch 1, and the clip it works on."""

    frames: int
    height: int
    width: int
    downsample: int
    num_heads: int
    head_width: int
    register_tokens: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one forward and backward pass took."""

    mask_seconds: float
    forward_seconds: float
    backward_seconds: float
    peak_mib: float

    @property
    def seconds(self) -> float:
        """Return forward and backward together, without the mask."""
        return self.forward_seconds + self.backward_seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 2 for a wrong argument."""
    options = _parser().parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda: this machine has no CUDA device (cami2v doctor)", file=sys.stderr)
        return 2
    layer = Layer(
        frames=options.frames,
        height=options.size[0],
        width=options.size[1],
        downsample=options.downsample,
        num_heads=options.heads,
        head_width=64,
        register_tokens=4,
        device=options.device,
    )
    costs = compare(layer, options.rounds)
    print(table(layer, costs))
    if options.json:
        rows = {variant: [asdict(cost) for cost in measured] for variant, measured in costs.items()}
        result = {"torch": torch.__version__, "device": _device_name(layer), "layer": asdict(layer), "rounds": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def compare(layer: Layer, rounds: int) -> dict[str, list[Cost]]:
    """Measure every variant `rounds` times, in turns."""
    costs: dict[str, list[Cost]] = {variant: [] for variant in VARIANTS[layer.device]}
    context = multiprocessing.get_context("spawn")
    for _ in range(rounds):
        for variant, measured in costs.items():
            with ProcessPoolExecutor(1, mp_context=context) as process:
                measured.append(process.submit(measure, variant, layer).result())
    return costs


def measure(variant: str, layer: Layer) -> Cost:
    """Run one layer forward and backward in this process, which must be fresh."""
    written_out, backend = variant.split()
    bands = orbit_bands(layer)
    dtype = torch.bfloat16 if layer.device == "cuda" else torch.float32
    width = layer.num_heads * layer.head_width
    query, key, value = (
        torch.randn(1, bands.grid.tokens + more, width, device=layer.device, dtype=dtype, requires_grad=True)
        for more in (0, layer.register_tokens, layer.register_tokens)
    )

    def run() -> tuple[float, float, float]:
        start = _clock(layer)
        mask: AttentionMask = DenseMask(allowed=bands.dense()) if written_out == "dense" else bands
        made = _clock(layer)
        backend_name: Backend = "flex" if backend == "flex" else "sdpa"
        attended = attend(
            query,
            key,
            value,
            num_heads=layer.num_heads,
            mask=mask,
            always_visible=layer.register_tokens,
            backend=backend_name,
        )
        attended_at = _clock(layer)
        torch.autograd.backward(attended, torch.ones_like(attended))
        return made - start, attended_at - made, _clock(layer) - attended_at

    if layer.device == "cuda":
        run()  # compiles
        for tensor in (query, key, value):
            tensor.grad = None
    before = _memory(layer, peak=False)
    mask_seconds, forward_seconds, backward_seconds = run()
    return Cost(
        mask_seconds=mask_seconds,
        forward_seconds=forward_seconds,
        backward_seconds=backward_seconds,
        peak_mib=(_memory(layer, peak=True) - before) / MIB,
    )


def orbit_bands(layer: Layer) -> EpipolarBands:
    """Describe the mask of a camera on an orbit, with the perturbation that opens a frame to itself."""
    poses = preset("orbit_right", layer.frames, 0.5)[None].float()
    focal = 0.9 * layer.width
    intrinsics = torch.tensor([focal, focal, layer.width / 2, layer.height / 2]).repeat(1, layer.frames, 1)
    noise = torch.randn(1, layer.frames, layer.frames, 3, generator=torch.Generator().manual_seed(0))
    bands = EpipolarBands(
        fundamental=fundamental_matrices(poses, intrinsics, perturbation=noise),
        grid=CellGrid(frames=layer.frames, height=layer.height, width=layer.width, downsample=layer.downsample),
        options=EpipolarOptions(),
        condition_frame=None,
    )
    return bands.to(layer.device)


def table(layer: Layer, costs: dict[str, list[Cost]]) -> str:
    """Write medians, and ratios to the mask written out in the same round."""
    grid = orbit_bands(layer).grid
    lines = [
        f"{layer.frames} x {grid.rows} x {grid.columns} = {grid.tokens} tokens, {layer.num_heads} heads of"
        f" {layer.head_width}, batch 1, {'bf16' if layer.device == 'cuda' else 'fp32'}, {_device_name(layer)},"
        f" torch {torch.__version__}, {len(costs[REFERENCE])} rounds",
        f"{'variant':<14}{'mask s':>9}{'forward s':>11}{'backward s':>12}{'peak MiB':>10}{'time':>8}{'memory':>8}",
    ]
    for variant, measured in costs.items():
        pairs = list(zip(measured, costs[REFERENCE], strict=True))
        seconds = statistics.median(mine.seconds / theirs.seconds for mine, theirs in pairs)
        memory = statistics.median(mine.peak_mib / theirs.peak_mib for mine, theirs in pairs)
        mask, forward, backward, peak = (
            statistics.median(getattr(cost, name) for cost in measured)
            for name in ("mask_seconds", "forward_seconds", "backward_seconds", "peak_mib")
        )
        row = f"{variant:<14}{mask:>9.2f}{forward:>11.2f}{backward:>12.2f}{peak:>10.0f}"
        lines.append(f"{row}{f'x{seconds:.2f}':>8}{f'x{memory:.3f}':>8}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark_attention", description=__doc__)
    parser.add_argument("--device", choices=tuple(VARIANTS), default="cpu")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(256, 256), help="of images")
    parser.add_argument("--downsample", type=int, default=8, help="image pixels per cell of the feature map")
    parser.add_argument("--heads", type=int, default=5, help="of 64 channels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    return parser


def _clock(layer: Layer) -> float:
    if layer.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _memory(layer: Layer, *, peak: bool) -> int:
    if layer.device == "cuda":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if not peak:
        return psutil.Process().memory_info().rss
    # Not getrusage: a process inherits the peak of the one that started it.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def _device_name(layer: Layer) -> str:
    return torch.cuda.get_device_name() if layer.device == "cuda" else f"CPU with {torch.get_num_threads()} threads"


if __name__ == "__main__":
    raise SystemExit(main())
