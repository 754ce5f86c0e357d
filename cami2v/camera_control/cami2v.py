"""CamI2V (arXiv 2410.15957): Pluecker features and epipolar attention beside temporal self-attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Float32, Int64
from torch import Tensor, nn

from cami2v.attention.core import AttentionCore
from cami2v.attention.epipolar_bands import EpipolarBands
from cami2v.attention.masks import AttentionMask
from cami2v.backbones.initialisation import zero_initialised
from cami2v.batch import Cameras
from cami2v.camera_control.base import BlockSite, CameraAdapter, CameraCondition, CameraControl, TokenGrid
from cami2v.camera_control.pose_encoder import PoseEncoder
from cami2v.camera_control.pyramid import MaskPyramid, Pyramid, feature_tokens
from cami2v.draws import Draws
from cami2v.geometry.cameras import scaled_relative_poses
from cami2v.geometry.epipolar import CellGrid, EpipolarOptions, fundamental_matrices
from cami2v.geometry.rays import pluecker_map

Insertion = Literal["main_branch", "temporal_attention"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CamI2VCondition(CameraCondition):
    """Pose features and epipolar masks of every backbone level the method has them for."""

    features: Pyramid
    masks: MaskPyramid
    """Queries and keys are "frames height width" tokens; register tokens are not among them."""
    condition_frame: Int64[Tensor, " batch"]


class EpipolarAttention(nn.Module):
    """Attention from every token of the clip to the tokens on its epipolar lines (section 3.3).

    Learned register tokens join the keys of every query, so that no query is ever left without a key.
    """

    def __init__(
        self, *, width: int, num_heads: int, head_compression: int, register_tokens: int, masked: bool
    ) -> None:
        super().__init__()
        inner_width = num_heads * (width // num_heads // head_compression)
        self.attention = AttentionCore(num_heads=num_heads, masked=masked)
        self.to_query = nn.Linear(width, inner_width, bias=False)
        self.to_key = nn.Linear(width, inner_width, bias=False)
        self.to_value = nn.Linear(width, inner_width, bias=False)
        self.to_output = zero_initialised(nn.Linear(inner_width, width))
        self.register_tokens = nn.Parameter(torch.randn(1, register_tokens, width)) if register_tokens else None

    def forward(
        self,
        tokens: Float[Tensor, "batch queries width"],
        context: Float[Tensor, "batch keys width"],
        mask: AttentionMask | None,
    ) -> Float[Tensor, "batch queries width"]:
        """Attend where the mask allows, or everywhere without one."""
        always_visible = 0
        if self.register_tokens is not None:
            always_visible = self.register_tokens.shape[1]
            # Without its axis of one: otherwise the gradient of a single clip keeps the strides of all keys.
            registers = self.register_tokens.squeeze(0).to(context.dtype).expand(context.shape[0], -1, -1)
            context = torch.cat([registers, context], dim=1)
        attended = self.attention(
            self.to_query(tokens),
            self.to_key(context),
            self.to_value(context),
            mask=mask,
            always_visible=always_visible,
        )
        return self.to_output(attended)


class CamI2VAdapter(CameraAdapter):
    """Pose projection plus epipolar attention, both zero at the start."""

    def __init__(
        self,
        site: BlockSite,
        *,
        insertion: Insertion,
        pose_features: bool,
        epipolar: EpipolarAttention | None,
        masked: bool,
        condition_frame_only: bool,
    ) -> None:
        super().__init__()
        self.downsample = site.downsample
        self.insertion = insertion
        self.pluecker_projection = zero_initialised(nn.Linear(site.width, site.width)) if pose_features else None
        self.epipolar = epipolar
        self.masked = masked
        self.condition_frame_only = condition_frame_only

    def before_self_attention(
        self, normed: Float[Tensor, "positions frames width"], condition: CameraCondition, grid: TokenGrid
    ) -> tuple[Float[Tensor, "positions frames width"], Float[Tensor, "positions frames width"] | None]:
        """Return the attention's input and the camera's contribution to the residual stream."""
        assert isinstance(condition, CamI2VCondition)
        signal, contribution = normed, None
        if self.pluecker_projection is not None:
            signal = normed + feature_tokens(condition.features, self.downsample, grid).to(normed.dtype)
            contribution = self.pluecker_projection(signal)
        if self.epipolar is not None:
            seen = self._attend_along_lines(signal, condition, grid)
            contribution = seen if contribution is None else contribution + seen
        assert contribution is not None
        if self.insertion == "main_branch":
            return normed, contribution
        return normed + contribution, None

    def _attend_along_lines(
        self, signal: Float[Tensor, "positions frames width"], condition: CamI2VCondition, grid: TokenGrid
    ) -> Float[Tensor, "positions frames width"]:
        assert self.epipolar is not None
        by_frame = rearrange(signal, "(b n) f c -> b f n c", b=grid.batch)
        tokens = context = rearrange(by_frame, "b f n c -> b (f n) c")
        if self.condition_frame_only:
            context = by_frame[torch.arange(grid.batch, device=signal.device), condition.condition_frame]
        mask = condition.masks.at(self.downsample) if self.masked else None
        if mask is not None and mask.shape[1] != tokens.shape[1]:
            raise ValueError(
                f"camera condition: the epipolar mask at latent downsample {self.downsample} has {mask.shape[1]} "
                f"queries, the backbone {tokens.shape[1]} tokens; the two must be of the same clip and size"
            )
        # A batch of several guidance branches has one mask for all of them.
        clips = grid.batch if mask is None else mask.shape[0]
        parts = zip(tokens.split(clips), context.split(clips), strict=True)
        by_branch = [self.epipolar(queries, keys, mask) for queries, keys in parts]
        attended = torch.cat(by_branch) if len(by_branch) > 1 else by_branch[0]
        return rearrange(attended, "b (f n) c -> (b n) f c", f=grid.frames)


class CamI2V(CameraControl):
    """Control all temporal blocks but the initial one through Pluecker features and epipolar attention.

    `attention_levels` are the latent downsamples with masked epipolar attention (of those the backbone has),
    `full_attention_levels` those where the clip attends to itself without a mask (the published 320x512 model does at
    level 1). A block on a level that is in neither raises ValueError, unless both are empty: then there is no epipolar
    attention at all. `perturb_same_frame` gives same-frame pairs, which have no parallax, a random epipole, drawn anew
    for every clip.
    """

    def __init__(
        self,
        *,
        pose_encoder: PoseEncoder | None,
        insertion: Insertion,
        attention_levels: Sequence[int],
        full_attention_levels: Sequence[int],
        register_tokens: int,
        perturb_same_frame: bool,
        trace_scale: float,
        latent_downsample: int,
        keys: Literal["all_frames", "condition_frame"] = "all_frames",
        head_compression: int = 1,
        mask_options: EpipolarOptions | None = None,
    ) -> None:
        super().__init__()
        both = sorted(set(attention_levels) & set(full_attention_levels))
        if both:
            raise ValueError(
                f"camera.attention_levels and camera.full_attention_levels: both name {both}; a level is masked or full"
            )
        if pose_encoder is None and not attention_levels and not full_attention_levels:
            raise ValueError(
                "camera: neither camera.pose_encoder nor a level of epipolar attention, so nothing controls the "
                "camera; set one of them or use camera=none"
            )
        self.pose_encoder = pose_encoder
        self.insertion = insertion
        self.attention_levels = tuple(attention_levels)
        self.full_attention_levels = tuple(full_attention_levels)
        self.register_tokens = register_tokens
        self.perturb_same_frame = perturb_same_frame
        self.trace_scale = trace_scale
        self.latent_downsample = latent_downsample
        self.condition_frame_only = keys == "condition_frame"
        self.head_compression = head_compression
        self.mask_options = mask_options or EpipolarOptions()
        self._masked: dict[int, tuple[EpipolarAttention]] = {}
        """A layer of each level with masks. The denoiser's, not part of this module: hence in a tuple."""

    def adapter_for(self, site: BlockSite) -> CameraAdapter | None:
        """Take every site but the initial attention; raises ValueError for a level that is not configured."""
        if site.kind == "initial":
            return None
        masked = site.downsample in self.attention_levels
        epipolar = self._epipolar_attention(site, masked=masked)
        if masked and epipolar is not None:
            self._masked[site.downsample] = (epipolar,)
        return CamI2VAdapter(
            site,
            insertion=self.insertion,
            pose_features=self.pose_encoder is not None,
            epipolar=epipolar,
            masked=masked,
            condition_frame_only=self.condition_frame_only,
        )

    def encode(self, cameras: Cameras, *, condition_frame: Int64[Tensor, " batch"], draws: Draws) -> CamI2VCondition:
        """Encode the poses relative to the conditioning camera."""
        with torch.no_grad():
            poses = scaled_relative_poses(cameras, condition_frame, self.trace_scale)
            masks = self._masks(poses, cameras, condition_frame, draws)
        features = Pyramid(levels={})
        if self.pose_encoder is not None:
            pluecker = pluecker_map(poses, cameras.intrinsics_pixels, cameras.height, cameras.width)
            features = self.pose_encoder.encode(pluecker)
        return CamI2VCondition(features=features, masks=masks, condition_frame=condition_frame)

    def _epipolar_attention(self, site: BlockSite, *, masked: bool) -> EpipolarAttention | None:
        levels = self.attention_levels + self.full_attention_levels
        if not levels:
            return None
        if site.downsample not in levels:
            raise ValueError(
                f"camera.attention_levels: block {site.name} works at latent downsample {site.downsample}, which is "
                f"neither in camera.attention_levels {list(self.attention_levels)} nor in "
                f"camera.full_attention_levels {list(self.full_attention_levels)}; add it to one of them"
            )
        return EpipolarAttention(
            width=site.width,
            num_heads=site.num_heads,
            head_compression=self.head_compression,
            register_tokens=self.register_tokens,
            masked=masked,
        )

    def _masks(
        self,
        poses: Float32[Tensor, "batch frames 4 4"],
        cameras: Cameras,
        condition_frame: Int64[Tensor, " batch"],
        draws: Draws,
    ) -> MaskPyramid:
        if not self._masked:
            return MaskPyramid(levels={})
        frames = poses.shape[1]
        perturbation = None
        if self.perturb_same_frame:
            perturbation = draws.normal("epipolar_perturbation", (frames, frames, 3)).to(poses.device)
        fundamental = fundamental_matrices(
            poses,
            cameras.intrinsics_pixels,
            perturbation=perturbation,
            key_intrinsics_on_both_sides=self.mask_options.key_intrinsics_on_both_sides,
        )
        masks = {}
        for level, (layer,) in sorted(self._masked.items()):
            grid = CellGrid(
                frames=frames,
                height=cameras.height,
                width=cameras.width,
                downsample=level * self.latent_downsample,
            )
            masks[level] = EpipolarBands(
                fundamental=fundamental,
                grid=grid,
                options=self.mask_options,
                condition_frame=condition_frame if self.condition_frame_only else None,
            )
            # Here and not at the first use: a compiled denoiser finds it as it finds the weights.
            layer.attention.prepare(masks[level], always_visible=self.register_tokens)
        return MaskPyramid(levels=masks)
