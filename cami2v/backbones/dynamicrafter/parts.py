"""Assembly of the U-Net's parts from its settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import nn

from cami2v.backbones.activation_checkpointing import Checkpointing
from cami2v.backbones.dynamicrafter.attention import SpatialTransformer, TemporalTransformer
from cami2v.backbones.dynamicrafter.blocks import (
    Downsample,
    InputStage,
    MiddleStage,
    ResidualBlock,
    Stage,
    Upsample,
)
from cami2v.camera_control.base import BlockSite, CameraAdapter

INITIAL_ATTENTION_HEADS = 8


@dataclass(frozen=True, kw_only=True)
class PartBuilder:
    """Builds the U-Net's parts and collects the sites offered to camera control."""

    embedding_width: int
    attention_downsamples: tuple[int, ...]
    head_width: int
    transformer_depth: int
    context_width: int
    dropout: float
    temporal_dropout: float
    learnable_image_scale: bool
    activation_checkpointing: Checkpointing
    adapter_for: Callable[[BlockSite], CameraAdapter | None]
    sites: list[BlockSite] = field(default_factory=list)

    def encoder(
        self, latent_channels: int, channels: int, widths: Sequence[int], residual_blocks: int, initial_attention: bool
    ) -> tuple[nn.ModuleList, list[int]]:
        """Build the encoder and list the widths it hands to the decoder."""
        stages = nn.ModuleList([self.input_stage(latent_channels, channels, initial_attention)])
        skip_widths = [channels]
        for level, width in enumerate(widths):
            for _ in range(residual_blocks):
                stages.append(
                    self.stage(
                        f"encoder.{len(stages)}",
                        kind="encoder",
                        in_channels=skip_widths[-1],
                        channels=width,
                        downsample=2**level,
                        upsample=False,
                    )
                )
                skip_widths.append(width)
            if level < len(widths) - 1:
                stages.append(Downsample(channels=width))
                skip_widths.append(width)
        return stages, skip_widths

    def decoder(self, widths: Sequence[int], residual_blocks: int, skip_widths: list[int]) -> nn.ModuleList:
        """Build the decoder; it takes the encoder's outputs in reverse."""
        stages = nn.ModuleList()
        channels, skip_widths = widths[-1], list(skip_widths)
        for level in reversed(range(len(widths))):
            for block in range(residual_blocks + 1):
                stages.append(
                    self.stage(
                        f"decoder.{len(stages)}",
                        kind="decoder",
                        in_channels=channels + skip_widths.pop(),
                        channels=widths[level],
                        downsample=2**level,
                        upsample=level > 0 and block == residual_blocks,
                    )
                )
                channels = widths[level]
        return stages

    def residual(self, in_channels: int, channels: int) -> ResidualBlock:
        """Build a residual block."""
        return ResidualBlock(
            in_channels=in_channels,
            channels=channels,
            embedding_width=self.embedding_width,
            dropout=self.dropout,
            temporal_dropout=self.temporal_dropout,
        )

    def spatial(self, channels: int) -> SpatialTransformer:
        """Build a transformer over pixels."""
        return SpatialTransformer(
            channels=channels,
            head_width=self.head_width,
            depth=self.transformer_depth,
            context_width=self.context_width,
            learnable_image_scale=self.learnable_image_scale,
        )

    def temporal(
        self, name: str, *, kind: str, channels: int, width: int, num_heads: int, downsample: int
    ) -> TemporalTransformer:
        """Build a transformer over frames and record its sites."""
        sites = tuple(
            BlockSite(name=f"{name}.blocks.{i}", kind=kind, width=width, num_heads=num_heads, downsample=downsample)
            for i in range(self.transformer_depth)
        )
        self.sites.extend(sites)
        return TemporalTransformer(
            channels=channels,
            sites=sites,
            pointwise_convolutions=kind == "initial",
            adapter_for=self.adapter_for,
        )

    def input_stage(self, latent_channels: int, channels: int, initial_attention: bool) -> InputStage:
        """Build the first convolution and the attention after it."""
        temporal = None
        if initial_attention:
            temporal = self.temporal(
                "encoder.0.temporal",
                kind="initial",
                channels=channels,
                # The inner width follows from the heads, not from the channels, in every released model.
                width=INITIAL_ATTENTION_HEADS * self.head_width,
                num_heads=INITIAL_ATTENTION_HEADS,
                downsample=1,
            )
        return InputStage(
            in_channels=2 * latent_channels,
            channels=channels,
            temporal=temporal,
            activation_checkpointing=self.activation_checkpointing,
        )

    def stage(self, name: str, *, kind: str, in_channels: int, channels: int, downsample: int, upsample: bool) -> Stage:
        """Build one encoder or decoder stage."""
        residual = self.residual(in_channels, channels)
        spatial = temporal = None
        if downsample in self.attention_downsamples:
            spatial = self.spatial(channels)
            temporal = self.temporal(
                f"{name}.temporal",
                kind=kind,
                channels=channels,
                width=channels,
                num_heads=channels // self.head_width,
                downsample=downsample,
            )
        return Stage(
            residual=residual,
            spatial=spatial,
            temporal=temporal,
            upsample=Upsample(channels=channels) if upsample else None,
            activation_checkpointing=self.activation_checkpointing,
        )

    def middle(self, channels: int, *, downsample: int) -> MiddleStage:
        """Build the coarsest stage."""
        return MiddleStage(
            residual_in=self.residual(channels, channels),
            spatial=self.spatial(channels),
            temporal=self.temporal(
                "middle.temporal",
                kind="middle",
                channels=channels,
                width=channels,
                num_heads=channels // self.head_width,
                downsample=downsample,
            ),
            residual_out=self.residual(channels, channels),
            activation_checkpointing=self.activation_checkpointing,
        )
