"""CLIP's embedding of single frames (arXiv 2103.00020), by OpenCLIP's image tower with its head."""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import functional as images

from cami2v.checkpoints.archives import open_archive
from cami2v.encoders.openclip_image import CLIP_MEAN, CLIP_STD, IMAGE_SIZE

_FIRST = "conv1.weight"


class CLIPImageEmbedder(nn.Module):
    """Maps frames to unit vectors; random weights (see `load_embedder`).

    Frames are resized (bicubic, antialiased) to a shorter side of 224 and cropped at the centre, as CLIP was trained.
    """

    def __init__(self, *, width: int, num_heads: int, layers: int, patch_size: int, output_width: int) -> None:
        super().__init__()
        self.tower = open_clip.transformer.VisionTransformer(
            image_size=IMAGE_SIZE, patch_size=patch_size, width=width, layers=layers, heads=num_heads, mlp_ratio=4.0,
            output_dim=output_width,
        )  # fmt: skip
        self.eval().requires_grad_(False)

    def forward(self, frames: UInt8[Tensor, "frames 3 height width"]) -> Float[Tensor, "frames embedding"]:
        """Embed frames, each by itself."""
        weight: Tensor = self.tower.conv1.weight
        pixels = frames.to(weight.device).float() / 255
        pixels = images.resize(pixels, [IMAGE_SIZE], images.InterpolationMode.BICUBIC, antialias=True)
        pixels = images.normalize(images.center_crop(pixels, [IMAGE_SIZE]), list(CLIP_MEAN), list(CLIP_STD))
        return functional.normalize(self.tower(pixels.to(weight.dtype)).float(), dim=-1)


def load_embedder(embedder: CLIPImageEmbedder, weights: Path) -> CLIPImageEmbedder:
    """Give an embedder the image tower in a file: OpenCLIP's own, or any that holds one (DynamiCrafter's do).

    Raises ValueError where the file is absent, or holds no tower of this size.
    """
    archive = open_archive(weights)
    found = [name.removesuffix(_FIRST) for name in archive.tensors if name.endswith(f"visual.{_FIRST}")]
    if len(found) != 1:
        raise ValueError(f"{weights}: holds {len(found)} image towers of OpenCLIP (*.visual.{_FIRST}), expected one")
    state = {name.removeprefix(found[0]): archive.read(name) for name in archive.tensors if name.startswith(found[0])}
    try:
        embedder.tower.load_state_dict({name: value.float() for name, value in state.items()})
    except RuntimeError as error:
        raise ValueError(f"{weights}: not this image tower ({' '.join(str(error).split())[:300]})") from error
    return embedder


def frame_consistency(
    embeddings: Float[Tensor, "frames embedding"],
) -> tuple[Float[Tensor, " others"], Float[Tensor, " others"]]:
    """Return frames 1..T-1's cosines to the frame before and to the first frame, of unit vectors."""
    later = embeddings[1:]
    return (later * embeddings[:-1]).sum(-1), torch.mv(later, embeddings[0])
