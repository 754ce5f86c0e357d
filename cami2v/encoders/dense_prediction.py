"""The DPT decoder (arXiv 2103.13413): a transformer's tokens at four depths, fused from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Map = Float[Tensor, "batch channels _ _"]

OUTPUT_CHANNELS = 32


class DensePredictionHead(nn.Module):
    """Decode four token maps of one size to one channel at the image's size.

    The maps are reassembled at 4, 2, 1 and 1/2 times their size.
    """

    def __init__(self, *, token_width: int, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(token_width, out, 1) for out in channels)
        self.resizes = nn.ModuleList(
            [
                nn.ConvTranspose2d(channels[0], channels[0], 4, stride=4),
                nn.ConvTranspose2d(channels[1], channels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(channels[3], channels[3], 3, stride=2, padding=1),
            ]
        )
        self.narrowings = nn.ModuleList(nn.Conv2d(out, width, 3, padding=1, bias=False) for out in channels)
        # The coarsest level has nothing to be added to.
        self.fusions = nn.ModuleList(Fusion(width, lateral=level < 3) for level in range(4))
        self.output_in = nn.Conv2d(width, width // 2, 3, padding=1)
        self.output_middle = nn.Conv2d(width // 2, OUTPUT_CHANNELS, 3, padding=1)
        self.output_out = nn.Conv2d(OUTPUT_CHANNELS, 1, 1)

    def forward(self, maps: Sequence[Map], size: tuple[int, int]) -> Float[Tensor, "batch 1 height width"]:
        """Fuse the maps, the first from the shallowest block, and resize to `size`."""
        parts = zip(self.projections, self.resizes, self.narrowings, maps, strict=True)
        levels = [narrow(resize(project(tokens))) for project, resize, narrow, tokens in parts]
        fused = self.fusions[3](None, levels[3], _size(levels[2]))
        fused = self.fusions[2](fused, levels[2], _size(levels[1]))
        fused = self.fusions[1](fused, levels[1], _size(levels[0]))
        rows, columns = _size(levels[0])
        fused = self.fusions[0](fused, levels[0], (2 * rows, 2 * columns))
        output = self.output_middle(_resize(self.output_in(fused), size))
        return self.output_out(functional.relu(output))


class Fusion(nn.Module):
    """Add a level to what comes from the coarser ones, and resize."""

    def __init__(self, width: int, *, lateral: bool) -> None:
        super().__init__()
        self.lateral = ResidualUnit(width) if lateral else None
        self.residual = ResidualUnit(width)
        self.projection = nn.Conv2d(width, width, 1)

    def forward(self, coarser: Map | None, level: Map, size: tuple[int, int]) -> Map:
        """Return the fused map at `size`; without `lateral`, `coarser` must be None."""
        if self.lateral is not None:
            assert coarser is not None
            level = coarser + self.lateral(level)
        return self.projection(_resize(self.residual(level), size))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, each after a ReLU, around a residual connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution1 = nn.Conv2d(width, width, 3, padding=1)
        self.convolution2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Map) -> Map:
        """Return a map of the same shape."""
        inner = self.convolution1(functional.relu(hidden))
        return hidden + self.convolution2(functional.relu(inner))


def _size(level: Map) -> tuple[int, int]:
    rows, columns = level.shape[-2:]
    return rows, columns


def _resize(level: Map, size: tuple[int, int]) -> Map:
    return functional.interpolate(level, size=size, mode="bilinear", align_corners=True)
