"""What one layer of epipolar attention costs, with the mask written out and with described bands."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from cami2v.attention import flex
from cami2v.attention.bundles import bundles_of
from cami2v.attention.choice import Backend
from cami2v.attention.core import attend, prepare
from cami2v.attention.device_bundles import multiplied_pairs
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask, DenseMask
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions, fundamental_matrices
from cami2v.trajectories.presets import preset
from tools.machine_ceilings import clock
from tools.peak_memory import peak_bytes, reset_peak

DENSE = "dense mask"
OURS = {"cpu": "bands, sdpa", "cuda": "bands, flex"}
"""What `auto` takes."""
BESIDE = {"cpu": (), "cuda": ("bands, triton",)}
MIB = 2**20
_BACKENDS: dict[str, Backend] = {"bands, flex": "flex", "bands, triton": "triton"}


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

    @property
    def grid(self) -> CellGrid:
        """Return the cells of its feature map."""
        return CellGrid(frames=self.frames, height=self.height, width=self.width, downsample=self.downsample)

    @property
    def dtype(self) -> torch.dtype:
        """Return the number format it is measured in."""
        return torch.bfloat16 if self.device == "cuda" else torch.float32

    @property
    def token_bytes(self) -> int:
        """Return the size of the queries, and of any other tensor of this layer."""
        return self.grid.tokens * self.num_heads * self.head_width * self.dtype.itemsize

    def operations(self, pairs: int) -> int:
        """Return the floating-point operations of both passes over so many pairs: two products, then five."""
        return (4 + 10) * pairs * self.num_heads * self.head_width

    @property
    def fewest_bytes(self) -> int:
        """Return what both passes read and write at least: four tensors, then eight."""
        return (4 + 8) * self.token_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one forward and one backward pass took; memory in MiB above the layer's inputs.

    Seconds are those of `machine_ceilings.clock`.
    """

    prepare_seconds: float
    """Once per clip and level: the mask, or the lists of what meets what."""
    forward_seconds: float
    backward_seconds: float
    forward_peak: float
    peak: float
    output: float
    """Of `forward_peak`: the result itself."""
    gradients: float
    """Of `peak`: the result, its gradient and those of queries, keys and values."""
    visible_pairs: int
    multiplied_pairs: int

    @property
    def seconds(self) -> float:
        """Return forward and backward together, without what is prepared once."""
        return self.forward_seconds + self.backward_seconds

    @property
    def all_seconds(self) -> float:
        """Return everything."""
        return self.prepare_seconds + self.seconds


def compare(layer: Layer, rounds: int, variants: Sequence[str] | None = None) -> dict[str, list[Cost]]:
    """Measure every variant `rounds` times, in turns, each time in a process of its own."""
    costs: dict[str, list[Cost]] = {
        variant: [] for variant in variants or (DENSE, OURS[layer.device], *BESIDE[layer.device])
    }
    context = multiprocessing.get_context("spawn")
    for _ in range(rounds):
        for variant, measured in costs.items():
            with ProcessPoolExecutor(1, mp_context=context) as process:
                measured.append(process.submit(measure, variant, layer).result())
    return costs


def measure(variant: str, layer: Layer) -> Cost:
    """Run one layer forward and backward in this process, which must be fresh."""
    if layer.device == "cuda":
        _run(variant, layer, orbit_bands(layer))  # compiles
    else:  # the first products load the library; a clip this small would have its mask written out
        warm_up = dataclasses.replace(layer, frames=5, height=16 * layer.downsample, width=16 * layer.downsample)
        _run(variant, warm_up, orbit_bands(warm_up))
    return _run(variant, layer, orbit_bands(layer))


def orbit_bands(layer: Layer) -> EpipolarBands:
    """Describe the mask of a camera on an orbit, with the perturbation that opens a frame to itself."""
    poses = preset("orbit_right", layer.frames, 0.5)[None].float()
    focal = 0.9 * layer.width
    intrinsics = torch.tensor([focal, focal, layer.width / 2, layer.height / 2]).repeat(1, layer.frames, 1)
    noise = torch.randn(1, layer.frames, layer.frames, 3, generator=torch.Generator().manual_seed(0))
    bands = EpipolarBands(
        fundamental=fundamental_matrices(poses, intrinsics, perturbation=noise),
        grid=layer.grid,
        options=EpipolarOptions(),
        condition_frame=None,
    )
    return bands.to(layer.device)


def _run(variant: str, layer: Layer, bands: EpipolarBands) -> Cost:
    device = torch.device(layer.device)
    width = layer.num_heads * layer.head_width
    query, key, value = (
        torch.randn(1, layer.grid.tokens + more, width, device=device, dtype=layer.dtype, requires_grad=True)
        for more in (0, layer.register_tokens, layer.register_tokens)
    )
    backend = _BACKENDS.get(variant, "sdpa")
    before = reset_peak(device)
    start = clock(device)
    mask: AttentionMask = bands
    if variant == DENSE:
        mask = DenseMask(allowed=bands.dense())
    prepare(mask, always_visible=layer.register_tokens, backend=backend)
    prepared = clock(device)
    output = attend(
        query, key, value, num_heads=layer.num_heads, mask=mask, always_visible=layer.register_tokens, backend=backend
    )
    forward = clock(device)
    forward_peak = peak_bytes(device) - before
    torch.autograd.backward(output, torch.ones_like(output))
    backward, peak = clock(device), peak_bytes(device) - before
    visible, multiplied = _pairs(mask, backend, layer)
    return Cost(
        prepare_seconds=prepared - start,
        forward_seconds=forward - prepared,
        backward_seconds=backward - forward,
        forward_peak=forward_peak / MIB,
        peak=peak / MIB,
        output=_bytes(output) / MIB,
        gradients=sum(map(_bytes, (output, output, query, key, value))) / MIB,
        visible_pairs=visible,
        multiplied_pairs=multiplied,
    )


def _pairs(mask: AttentionMask, backend: Backend, layer: Layer) -> tuple[int, int]:
    """Return the pairs that may attend and those that are multiplied, without register tokens; 0 where not counted."""
    if isinstance(mask, DenseMask):
        return int(mask.allowed.count_nonzero()), mask.allowed.numel()
    assert isinstance(mask, EpipolarBands)
    if backend == "flex":
        blocks = flex.block_mask(mask, layer.register_tokens).to_dense()[..., : -(-layer.grid.tokens // flex.BLOCK)]
        return 0, int(blocks.sum()) * flex.BLOCK**2
    if backend == "triton":
        return 0, multiplied_pairs(mask)
    found = [some for clip in bundles_of(mask) for frame in clip for pair in frame for some in pair]
    return 0, sum(some.queries.shape[1] * some.keys.numel() for some in found)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
