"""VideoMAE features for the content-debiased Frechet video distance (arXiv 2404.12391): more of motion, less of looks.

The network is transformers' VideoMAE in the shape of VideoMAE V2 (arXiv 2303.16727); weights are read by their released
names, strictly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import VideoMAEConfig, VideoMAEModel

from cami2v.checkpoints.archives import Archive, open_archive
from cami2v.evaluation.fvd_preprocessing import Convention, to_square
from cami2v.evaluation.video_detectors import VideoDetector, Videos

_SQUASHED = Convention(size=224, keep_aspect=False)
_OF_A_BLOCK = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_HEAD = re.compile(r"head\.(weight|bias)")
_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMAEShape:
    """Sizes of a VideoMAE encoder for 16 frames of 224x224."""

    width: int
    layers: int
    num_heads: int
    mlp_width: int
    patch_size: int
    frames: int = 16
    tubelet_frames: int = 2


GIANT = VideoMAEShape(width=1408, layers=40, num_heads=16, mlp_width=6144, patch_size=14)
"""ViT-g, fine-tuned on Something-Something v2: the paper's choice."""


class VideoMAEDetector(VideoDetector):
    """Mean over all tokens after the last block, normalised; random weights (see `load_videomae`).

    Frames are squashed to 224x224 with values in [0, 1], as the paper's package does: no other normalisation. Position
    encodings are stretched over time where there are not 16 frames; an odd last frame is not seen.
    """

    def __init__(self, *, shape: VideoMAEShape) -> None:
        super().__init__()
        config = VideoMAEConfig(
            image_size=_SQUASHED.size, patch_size=shape.patch_size, num_frames=shape.frames,
            tubelet_size=shape.tubelet_frames, hidden_size=shape.width, num_hidden_layers=shape.layers,
            num_attention_heads=shape.num_heads, intermediate_size=shape.mlp_width, layer_norm_eps=1e-6,
            use_mean_pooling=True,
        )  # fmt: skip
        self.shape = shape
        self.features, self.min_frames = shape.width, shape.tubelet_frames
        self.encoder = VideoMAEModel(config)
        self.norm = nn.LayerNorm(shape.width, eps=1e-6)
        self.register_buffer("positions", self.encoder.embeddings.position_embeddings.clone(), persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, videos: Videos) -> Float[Tensor, "batch features"]:
        """Return one vector per video. Raises ValueError for a single frame."""
        if videos.shape[2] < self.min_frames:
            raise ValueError(f"VideoMAE got videos of {videos.shape[2]} frame(s); it needs {self.min_frames} or more")
        pixels = self.on_weights((to_square(videos, _SQUASHED) + 1) / 2)
        self.encoder.embeddings.position_embeddings = self._stretched(videos.shape[2] // self.shape.tubelet_frames)
        tokens = self.encoder(pixels.transpose(1, 2)).last_hidden_state
        return self.norm(tokens.mean(1))

    def _stretched(self, steps: int) -> Float[Tensor, "1 tokens width"]:
        known, side = self.shape.frames // self.shape.tubelet_frames, _SQUASHED.size // self.shape.patch_size
        positions: Tensor = self.get_buffer("positions").float()
        if steps == known:
            return positions
        volume = positions.transpose(1, 2).reshape(1, -1, known, side, side)
        # The tenth, as in the paper's package, keeps rounding from losing a step.
        stretched = functional.interpolate(volume, scale_factor=((steps + 0.1) / known, 1, 1), mode="trilinear")
        return stretched.flatten(2).transpose(1, 2)


def load_videomae(weights: Path, shape: VideoMAEShape = GIANT) -> VideoMAEDetector:
    """Build the network with released weights: a safetensors or torch.save file, whose code is never run.

    Raises ValueError where the file is absent or does not hold exactly this network's state and a classifier's head.
    """
    archive = open_archive(weights)
    # All of a giant's weights are read at once: no time is spent on random ones.
    with torch.device("meta"):
        network = VideoMAEDetector(shape=shape)
    with torch.device("cpu"):
        network.positions = VideoMAEDetector(shape=_without_layers(shape)).positions
    state = _renamed(archive, shape)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    # Keys have no bias, released or here; some versions of transformers hold one, of zeros.
    state |= {name: torch.zeros(size) for name, size in expected.items() if name.endswith(".key.bias")}
    wrong = [name for name, value in state.items() if expected.get(name) != tuple(value.shape)]
    lacking = sorted(expected.keys() - state.keys())
    if wrong or lacking:
        raise ValueError(
            f"{weights}: not the fine-tuned VideoMAE V2 weights of width {shape.width} and {shape.layers} layers "
            f"({len(lacking)} tensors missing{_first(lacking)}, {len(wrong)} of other names or shapes{_first(wrong)})"
        )
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _renamed(archive: Archive, shape: VideoMAEShape) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name in archive.tensors:
        if _HEAD.fullmatch(name):
            continue
        value = archive.read(name).float()
        if name.endswith("attn.qkv.weight") and len(value) == 3 * shape.width:
            layer = _layer(name)
            for ours, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                state[f"{layer}.attention.attention.{ours}.weight"] = part.clone()
        else:
            state[_ours(name)] = value
    return state


def _ours(name: str) -> str:
    """Return the name that transformers has for a released one; an unknown one as it is."""
    if name.startswith("patch_embed.proj."):
        return name.replace("patch_embed.proj.", "encoder.embeddings.patch_embeddings.projection.")
    if name.startswith("fc_norm."):
        return name.replace("fc_norm.", "norm.")
    block = _BLOCK.fullmatch(name)
    if block is None:
        return name
    if block[2] in ("attn.q_bias", "attn.v_bias"):
        return f"{_layer(name)}.attention.attention.{'query' if 'q_' in block[2] else 'value'}.bias"
    inner, _, kind = block[2].rpartition(".")
    return f"{_layer(name)}.{_OF_A_BLOCK[inner]}.{kind}" if inner in _OF_A_BLOCK else name


def _layer(name: str) -> str:
    return f"encoder.encoder.layer.{name.split('.')[1]}"


def _without_layers(shape: VideoMAEShape) -> VideoMAEShape:
    return VideoMAEShape(
        width=shape.width, layers=0, num_heads=shape.num_heads, mlp_width=1, patch_size=shape.patch_size,
        frames=shape.frames, tubelet_frames=shape.tubelet_frames,
    )  # fmt: skip


def _first(names: Iterable[str]) -> str:
    return next((f", first {name}" for name in names), "")
