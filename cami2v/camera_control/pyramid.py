"""One tensor, or one attention mask, per resolution of the backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from cami2v.attention.masks import AttentionMask
from cami2v.batch import Movable
from cami2v.camera_control.base import TokenGrid

Level = TypeVar("Level")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid(Movable):
    """Tensors keyed by the spatial factor between latent and feature map (1, 2, 4, 8)."""

    levels: Mapping[int, Tensor]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Pyramid:
        """Return a copy with every level on `device`."""
        return Pyramid(levels={k: v.to(device, non_blocking=non_blocking) for k, v in self.levels.items()})

    def repeated(self, times: int) -> Pyramid:
        """Return the pyramid of a batch repeated whole, `times` times."""
        return Pyramid(levels={level: torch.cat([value] * times) for level, value in self.levels.items()})

    def at(self, downsample: int) -> Tensor:
        """Return one level; raises ValueError for a missing one rather than doing without it."""
        return _level(self.levels, downsample)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPyramid(Movable):
    """Attention masks keyed by the spatial factor between latent and feature map."""

    levels: Mapping[int, AttentionMask]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> MaskPyramid:
        """Return a copy with every level on `device`."""
        return MaskPyramid(levels={k: v.to(device, non_blocking=non_blocking) for k, v in self.levels.items()})

    def repeated(self, times: int) -> MaskPyramid:
        """Return these very masks: whoever attends takes a repeated batch apart."""
        return self

    def at(self, downsample: int) -> AttentionMask:
        """Return one level; raises ValueError for a missing one, which never turns into full attention."""
        return _level(self.levels, downsample)


def feature_tokens(features: Pyramid, downsample: int, grid: TokenGrid) -> Float[Tensor, "positions frames width"]:
    """Return a level of pose features, stored as "batch height width frames channels", as a block's tokens.

    Raises ValueError where the cameras' image size does not belong to the block's feature map.
    """
    level = features.at(downsample)
    expected = (grid.batch, grid.height, grid.width, grid.frames)
    if tuple(level.shape[:4]) != expected:
        raise ValueError(
            f"camera condition: features at latent downsample {downsample} are {tuple(level.shape[:4])} (batch, "
            f"height, width, frames), the backbone's are {expected}; the two must be of the same clip and size"
        )
    return rearrange(level, "b h w f c -> (b h w) f c")


def _level(levels: Mapping[int, Level], downsample: int) -> Level:
    if downsample not in levels:
        raise ValueError(
            f"camera condition: no level for latent downsample {downsample}, only {sorted(levels)}; "
            "give the camera method a level for every block it controls"
        )
    return levels[downsample]
