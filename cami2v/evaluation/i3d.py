"""I3D, the video classifier whose outputs the Frechet video distance compares (arXiv 1705.07750).

Modules are named as in the released weights, so that those load strictly.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cami2v.checkpoints.archives import open_archive

IMAGE_SIZE = 224
CLASSES = 400
MIN_FRAMES = 9
"""Time is halved three times, rounding up, and then averaged in pairs."""

Volume = Float[Tensor, "batch _ _ _ _"]
Sizes = tuple[int, int, int]

# Inception branches: 1x1x1; 1x1x1 then 3x3x3; the same, narrower; pooling then 1x1x1.
_INCEPTIONS = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}


class I3D(nn.Module):
    """Inflated Inception over videos in [-1, 1] with random weights (see `load_i3d`); always in evaluation mode.

    `forward` gives class logits, averaged over time. Raises ValueError for frames that are not 224x224 and for fewer
    than nine frames.
    """

    def __init__(self) -> None:
        super().__init__()
        stages = dict(_stages())
        self.stage_names = tuple(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.logits = _Convolution(1024, CLASSES, (1, 1, 1), normalised=False)
        self.eval()

    def train(self, mode: bool = True) -> I3D:
        """Stay in evaluation mode: the metric is defined with the running statistics."""
        return super().train(False)

    def endpoints(self, videos: Float[Tensor, "batch 3 frames height width"]) -> Iterator[tuple[str, Volume]]:
        """Yield every stage's output with its name, in order."""
        frames, height, width = videos.shape[2:]
        if frames < MIN_FRAMES:
            raise ValueError(f"I3D got videos of {frames} frames; it needs {MIN_FRAMES} or more")
        if (height, width) != (IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"I3D got frames of {height}x{width}; preprocess them to {IMAGE_SIZE}x{IMAGE_SIZE}")
        hidden: Tensor = videos
        for name in self.stage_names:
            hidden = self.get_submodule(name)(hidden)
            yield name, hidden

    def features(self, videos: Float[Tensor, "batch 3 frames height width"]) -> Float[Tensor, "batch 1024 times 1 1"]:
        """Return what the classifier sees: the last stage's output, averaged over the frame and pairs of times."""
        hidden: Tensor = videos
        for _, output in self.endpoints(videos):
            hidden = output
        return functional.avg_pool3d(hidden, (2, 7, 7), stride=1)

    def forward(self, videos: Float[Tensor, "batch 3 frames height width"]) -> Float[Tensor, "batch 400"]:
        """Return class logits."""
        return self.logits(self.features(videos)).mean(dim=(2, 3, 4))


def load_i3d(weights: Path) -> I3D:
    """Build the network with released weights: a safetensors or torch.save file, whose code is never run.

    Raises ValueError where the file is absent or does not hold exactly this network's state.
    """
    archive = open_archive(weights)
    network = I3D()
    try:
        network.load_state_dict({name: archive.read(name) for name in archive.tensors})
    except RuntimeError as error:
        raise ValueError(
            f"{weights}: not the Kinetics-400 I3D weights of the VideoGPT implementation "
            f"({' '.join(str(error).split())[:300]})"
        ) from error
    return network


class _Convolution(nn.Module):
    """Convolution with batch norm and ReLU, or with a bias only."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Sizes, stride: Sizes = (1, 1, 1), *, normalised: bool = True
    ) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=not normalised)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-5) if normalised else None

    def forward(self, volume: Volume) -> Volume:
        volume = self.conv3d(_pad(volume, self.kernel, self.stride))
        return volume if self.bn is None else functional.relu(self.bn(volume))


class _MaxPool(nn.Module):
    """Maximum over windows; the padding counts as zero."""

    def __init__(self, kernel: Sizes, stride: Sizes) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, volume: Volume) -> Volume:
        return functional.max_pool3d(_pad(volume, self.kernel, self.stride), self.kernel, self.stride)


class _Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three = (1, 1, 1), (3, 3, 3)
        self.b0 = _Convolution(inputs, widths[0], one)
        self.b1a = _Convolution(inputs, widths[1], one)
        self.b1b = _Convolution(widths[1], widths[2], three)
        self.b2a = _Convolution(inputs, widths[3], one)
        self.b2b = _Convolution(widths[3], widths[4], three)
        self.b3a = _MaxPool(three, one)
        self.b3b = _Convolution(inputs, widths[5], one)

    def forward(self, volume: Volume) -> Volume:
        branches = [
            self.b0(volume),
            self.b1b(self.b1a(volume)),
            self.b2b(self.b2a(volume)),
            self.b3b(self.b3a(volume)),
        ]
        return torch.cat(branches, dim=1)


def _stages() -> Iterator[tuple[str, nn.Module]]:
    yield "Conv3d_1a_7x7", _Convolution(3, 64, (7, 7, 7), (2, 2, 2))
    yield "MaxPool3d_2a_3x3", _MaxPool((1, 3, 3), (1, 2, 2))
    yield "Conv3d_2b_1x1", _Convolution(64, 64, (1, 1, 1))
    yield "Conv3d_2c_3x3", _Convolution(64, 192, (3, 3, 3))
    yield "MaxPool3d_3a_3x3", _MaxPool((1, 3, 3), (1, 2, 2))
    channels = 192
    for name, widths in _INCEPTIONS.items():
        if name == "Mixed_4b":
            yield "MaxPool3d_4a_3x3", _MaxPool((3, 3, 3), (2, 2, 2))
        if name == "Mixed_5b":
            yield "MaxPool3d_5a_2x2", _MaxPool((2, 2, 2), (2, 2, 2))
        yield name, _Inception(channels, widths)
        channels = widths[0] + widths[2] + widths[4] + widths[5]


def _pad(volume: Volume, kernel: Sizes, stride: Sizes) -> Volume:
    """Pad with zeros as TensorFlow's SAME does: output sizes are input sizes over strides, rounded up."""
    padding: list[int] = []
    for size, window, step in zip(volume.shape[2:], kernel, stride, strict=True):
        total = max(window - (size % step or step), 0)
        padding = [total // 2, total - total // 2, *padding]
    return functional.pad(volume, padding)
