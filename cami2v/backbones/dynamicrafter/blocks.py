"""Residual, resampling and composite blocks of the DynamiCrafter U-Net."""

from __future__ import annotations

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cami2v.backbones.activation_checkpointing import Checkpointing, run_part
from cami2v.backbones.dynamicrafter.attention import SpatialTransformer, TemporalTransformer
from cami2v.backbones.dynamicrafter.context import BlockContext
from cami2v.backbones.dynamicrafter.layers import Float32GroupNorm, TemporalConv
from cami2v.backbones.initialisation import zero_initialised


class TemporalConvolutionLayer(nn.Module):
    """Norm, SiLU, dropout and a three-frame convolution."""

    def __init__(self, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.norm = Float32GroupNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.convolution = TemporalConv(channels)

    def forward(
        self, clip: Float[Tensor, "batch channels frames pixels"]
    ) -> Float[Tensor, "batch channels frames pixels"]:
        """Mix neighbouring frames."""
        return self.convolution(self.dropout(functional.silu(self.norm(clip))))


class TemporalConvolution(nn.Module):
    """Four temporal convolution layers added to their input; the last starts at zero."""

    def __init__(self, *, channels: int, dropout: float) -> None:
        super().__init__()
        self.layer1 = TemporalConvolutionLayer(channels=channels, dropout=0.0)
        self.layer2 = TemporalConvolutionLayer(channels=channels, dropout=dropout)
        self.layer3 = TemporalConvolutionLayer(channels=channels, dropout=dropout)
        self.layer4 = TemporalConvolutionLayer(channels=channels, dropout=dropout)
        zero_initialised(self.layer4.convolution)

    def forward(
        self, hidden: Float[Tensor, "batch_frames channels height width"], frames: int
    ) -> Float[Tensor, "batch_frames channels height width"]:
        """Mix frames of each clip."""
        clip = rearrange(hidden, "(b f) c h w -> b c f (h w)", f=frames)
        clip = clip + self.layer4(self.layer3(self.layer2(self.layer1(clip))))
        return rearrange(clip, "b c f (h w) -> (b f) c h w", h=hidden.shape[2])


class ResidualBlock(nn.Module):
    """Two convolutions modulated by the step embedding, then the temporal convolution."""

    def __init__(
        self, *, in_channels: int, channels: int, embedding_width: int, dropout: float, temporal_dropout: float
    ) -> None:
        super().__init__()
        self.norm_in = Float32GroupNorm(in_channels)
        self.convolution_in = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
        self.embedding_projection = nn.Linear(embedding_width, channels)
        self.norm_out = Float32GroupNorm(channels)
        self.dropout = nn.Dropout(dropout)
        self.convolution_out = zero_initialised(nn.Conv2d(channels, channels, kernel_size=3, padding=1))
        self.skip = nn.Identity() if in_channels == channels else nn.Conv2d(in_channels, channels, kernel_size=1)
        self.temporal_convolution = TemporalConvolution(channels=channels, dropout=temporal_dropout)

    def forward(
        self, hidden: Float[Tensor, "batch_frames in_channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels height width"]:
        """Transform each frame, then mix neighbouring frames."""
        residual = self.convolution_in(functional.silu(self.norm_in(hidden)))
        shift = self.embedding_projection(functional.silu(context.embedding)).to(residual.dtype)
        residual = residual + repeat(shift, "b c -> (b f) c 1 1", f=context.frames)
        residual = self.convolution_out(self.dropout(functional.silu(self.norm_out(residual))))
        return self.temporal_convolution(self.skip(hidden) + residual, context.frames)


class InputStage(nn.Module):
    """First convolution, then the initial temporal attention where the model has one."""

    def __init__(
        self,
        *,
        in_channels: int,
        channels: int,
        temporal: TemporalTransformer | None,
        activation_checkpointing: Checkpointing,
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1)
        self.temporal = temporal
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self, hidden: Float[Tensor, "batch_frames in_channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels height width"]:
        """Apply the parts in order."""
        hidden = self.convolution(hidden)
        if self.temporal is None:
            return hidden
        return _run(self.temporal, hidden, context, self.activation_checkpointing)


class Downsample(nn.Module):
    """Halve height and width with a strided convolution."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, stride=2, padding=1)

    def forward(
        self, hidden: Float[Tensor, "batch_frames channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels half_height half_width"]:
        """Downsample each frame."""
        return self.convolution(hidden)


class Upsample(nn.Module):
    """Double height and width by repetition, then convolve."""

    def __init__(self, *, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(
        self, hidden: Float[Tensor, "batch_frames channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels double_height double_width"]:
        """Upsample each frame."""
        return self.convolution(functional.interpolate(hidden, scale_factor=2, mode="nearest"))


class Stage(nn.Module):
    """One entry of the encoder or decoder: residual block, transformers where the level has them, upsampling."""

    def __init__(
        self,
        *,
        residual: ResidualBlock,
        spatial: SpatialTransformer | None,
        temporal: TemporalTransformer | None,
        upsample: Upsample | None,
        activation_checkpointing: Checkpointing,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.spatial = spatial
        self.temporal = temporal
        self.upsample = upsample
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self, hidden: Float[Tensor, "batch_frames in_channels in_height in_width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels out_height out_width"]:
        """Apply the parts in order."""
        for part in (self.residual, self.spatial, self.temporal, self.upsample):
            if part is not None:
                hidden = _run(part, hidden, context, self.activation_checkpointing)
        return hidden


class MiddleStage(nn.Module):
    """Coarsest stage: residual block, both transformers, residual block."""

    def __init__(
        self,
        *,
        residual_in: ResidualBlock,
        spatial: SpatialTransformer,
        temporal: TemporalTransformer,
        residual_out: ResidualBlock,
        activation_checkpointing: Checkpointing,
    ) -> None:
        super().__init__()
        self.residual_in = residual_in
        self.spatial = spatial
        self.temporal = temporal
        self.residual_out = residual_out
        self.activation_checkpointing = activation_checkpointing

    def forward(
        self, hidden: Float[Tensor, "batch_frames channels height width"], context: BlockContext
    ) -> Float[Tensor, "batch_frames channels height width"]:
        """Apply the parts in order."""
        for part in (self.residual_in, self.spatial, self.temporal, self.residual_out):
            hidden = _run(part, hidden, context, self.activation_checkpointing)
        return hidden


def _run(
    part: nn.Module, hidden: Float[Tensor, "batch_frames ..."], context: BlockContext, how: Checkpointing
) -> Float[Tensor, "batch_frames ..."]:
    if how == "selective" and isinstance(part, TemporalTransformer):
        how = False
    return run_part(part, hidden, context, how=how)
