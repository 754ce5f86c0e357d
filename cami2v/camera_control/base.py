"""The contract between a backbone and a camera-control method.

While it builds, a backbone offers a `BlockSite` for each of its temporal transformer blocks. A `CameraControl` answers
with a `CameraAdapter` (or None: this block stays as it was), which the block owns as `self.camera` and calls in plain
sight. `CameraControl.encode` turns cameras into a `CameraCondition` once per clip; it does not depend on the timestep.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from cami2v.batch import Cameras, Movable
from cami2v.draws import Draws

Condition = TypeVar("Condition", bound="CameraCondition")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSite:
    """One temporal transformer block that offers itself to camera control."""

    name: str
    """Dotted module path inside the backbone."""
    kind: str
    """`initial` for the attention right after the first convolution, else `encoder`, `middle` or `decoder`."""
    width: int
    num_heads: int
    downsample: int
    """Spatial factor between latent and feature map (1, 2, 4, 8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenGrid:
    """How a block's "(batch height width) frames channels" tokens unfold."""

    batch: int
    frames: int
    height: int
    width: int


class CameraCondition(Movable):
    """Camera signal of a batch, computed once per clip. Each method has its own frozen dataclass."""

    __slots__ = ()

    def repeated(self: Condition, times: int) -> Condition:
        """Return the condition of the batch repeated whole, `times` times; attention masks are shared, not repeated."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]  # every subclass is a dataclass
        return type(self)(
            **{
                name: torch.cat([value] * times) if isinstance(value, Tensor) else value.repeated(times)
                for name, value in fields.items()
            }
        )


class CameraAdapter(nn.Module):
    """What a temporal block calls around its first self-attention. The default changes nothing.

    Tokens are "(batch height width) frames channels", batch-major.
    """

    def before_self_attention(
        self, normed: Float[Tensor, "positions frames width"], condition: CameraCondition, grid: TokenGrid
    ) -> tuple[Float[Tensor, "positions frames width"], Float[Tensor, "positions frames width"] | None]:
        """Return the attention's input and what is added to the residual stream beside the attention's output."""
        return normed, None

    def after_self_attention(
        self, hidden: Float[Tensor, "positions frames width"], condition: CameraCondition, grid: TokenGrid
    ) -> Float[Tensor, "positions frames width"]:
        """Return the residual stream that enters the second attention."""
        return hidden


class CameraControl(nn.Module, ABC):
    """A camera-control method: the encoder of cameras and the maker of adapters.

    At its own initialisation a method leaves the bare backbone's output unchanged (tests/contracts).
    """

    also_trains: tuple[str, ...] = ()
    """Regular expressions over backbone parameter names that this method's published recipe trains as well."""
    needs_metric_scale: bool = False
    """Whether the method is defined on translations in metres only."""

    @abstractmethod
    def adapter_for(self, site: BlockSite) -> CameraAdapter | None:
        """Build the adapter of one block, or None where the method leaves the block alone."""

    @abstractmethod
    def encode(self, cameras: Cameras, *, condition_frame: Int64[Tensor, " batch"], draws: Draws) -> CameraCondition:
        """Encode batched cameras relative to each clip's conditioning frame."""
