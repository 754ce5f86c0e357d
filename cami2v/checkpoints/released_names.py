"""Names of parameters in the released checkpoints, mapped to ours and back.

Every rule is a pair of templates and works in both directions; of several matching rules the first wins. The released
spellings, misspellings included, live in this file only. A checkpoint also holds what we derive (schedule tables) or
never use (parts of CLIP); those names are recognised, with the reason, and have no counterpart.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from torch import Tensor

Rule = tuple[str, str]

# {n} {i} {j} stand for numbers, {leaf} for the last part of a name, {rest} for any number of parts.
_PLACEHOLDERS = {"n": r"\d+", "i": r"\d+", "j": r"\d+", "leaf": r"[^.]+", "rest": r".+"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Translation:
    """What became of the names of a released checkpoint."""

    ours: dict[str, str]
    """Released name to ours."""
    unused: dict[str, str]
    """Released name to the reason why there is no counterpart."""
    unknown: tuple[str, ...]
    """Names that no rule explains."""


def our_names(released: Iterable[str]) -> Translation:
    """Translate the names of one whole released checkpoint."""
    released = tuple(released)
    last_text_block = _last_text_block(released)
    ours, unused, unknown = {}, {}, []
    for name in released:
        reason = _why_unused(name, last_text_block)
        if reason is not None:
            unused[name] = reason
            continue
        translated = _apply(_TO_OURS, name)
        if translated is None:
            unknown.append(name)
        else:
            ours[name] = translated
    return Translation(ours=_decoder_levels_reversed(ours), unused=unused, unknown=tuple(unknown))


def released_names(ours: Iterable[str]) -> dict[str, str]:
    """Translate the parameter names of one whole model of ours.

    Raises ValueError for a name that no released checkpoint has.
    """
    ours = tuple(ours)
    attending = {name.split(".temporal.")[0] for name in ours if ".temporal." in name}
    translated = {}
    for name in ours:
        released = _apply(_TO_RELEASED, name)
        if released is None:
            raise ValueError(
                f"parameter {name}: no released checkpoint has a counterpart; export it under our own name"
            )
        stage = name.split(".upsample.")[0]
        if ".upsample." in name and stage not in attending:
            # The released index counts the modules of the stage: without the two transformers it is 1.
            released = released.replace(".3.conv.", ".1.conv.")
        translated[name] = released
    return _decoder_levels_reversed(translated)


def to_our_shape(our_name: str, tensor: Tensor) -> Tensor:
    """Drop the kernel axes where the release has a 1x1 convolution and we have a linear layer."""
    pointwise = tensor.shape[2:] == (1, 1) and _LINEAR_HERE.fullmatch(our_name)
    return tensor[:, :, 0, 0] if pointwise else tensor


def to_released_shape(our_name: str, tensor: Tensor) -> Tensor:
    """Undo `to_our_shape`."""
    return tensor[:, :, None, None] if _LINEAR_HERE.fullmatch(our_name) else tensor


def has_dynamic_rescale(released: Collection[str]) -> bool | None:
    """Tell from its tables whether a checkpoint's schedule rescales latents; None where it holds no tables."""
    return _RESCALE_TABLE in released if any(name in released for name in _SCHEDULE) else None


_LINEAR_HERE = re.compile(r"first_stage\.autoencoder\..*\.attentions\.0\.(to_q|to_k|to_v|to_out\.0)\.weight")

_RESCALE_TABLE = "scale_arr"

_SCHEDULE = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    _RESCALE_TABLE,
]

_UNUSED: tuple[tuple[str, str], ...] = (
    (rf"({'|'.join(_SCHEDULE)})", "table of the noise schedule, derived from its settings"),
    (r"pose_encoder\..*\.pos_encoder\.pe", "sinusoidal table, derived"),
    (r"cond_stage_model\.model\.(text_projection|logit_scale)", "contrastive head, never used"),
    (
        r"embedder\.model\.(positional_embedding|text_projection|logit_scale|token_embedding\..*|ln_final\..*)",
        "text tower left in the image encoder, never used",
    ),
    (r"embedder\.model\.visual\.(ln_post\..*|proj)", "contrastive head, never used"),
    (r"depth_predictor_normalizer_(mean|std)", "ImageNet's statistics, constants"),
    (r"(depth_predictor\.)?pretrained\.mask_token", "for DINOv2's own training, never used"),
    (
        r"(depth_predictor\.)?depth_head\.scratch\.refinenet4\.resConfUnit1\..*",
        "the coarsest level has nothing to be added to, never used",
    ),
)

_DECODER_LEVEL = re.compile(
    r"^(first_stage_model\.decoder\.up\.|first_stage\.autoencoder\.decoder\.up_blocks\.)(\d+)\."
)

_TEXT_BLOCK = re.compile(r"cond_stage_model\.model\.transformer\.resblocks\.(\d+)\..*")

_SELF_ATTENTION: tuple[Rule, ...] = (
    ("to_q.{leaf}", "to_query.{leaf}"),
    ("to_k.{leaf}", "to_key.{leaf}"),
    ("to_v.{leaf}", "to_value.{leaf}"),
    ("to_out.0.{leaf}", "to_output.{leaf}"),
)

_FEED_FORWARD: tuple[Rule, ...] = (
    ("net.0.proj.{leaf}", "to_value_and_gate.{leaf}"),
    ("net.2.{leaf}", "to_output.{leaf}"),
)


def _joined(places: Iterable[Rule], parts: Iterable[Rule]) -> tuple[Rule, ...]:
    """Combine every place with every part of the module that sits there."""
    pairs = itertools.product(places, parts)
    return tuple((f"{place[0]}.{part[0]}", f"{place[1]}.{part[1]}") for place, part in pairs)


_RESIDUAL_BLOCK: tuple[Rule, ...] = (
    ("in_layers.0.{leaf}", "norm_in.{leaf}"),
    ("in_layers.2.{leaf}", "convolution_in.{leaf}"),
    ("emb_layers.1.{leaf}", "embedding_projection.{leaf}"),
    ("out_layers.0.{leaf}", "norm_out.{leaf}"),
    ("out_layers.3.{leaf}", "convolution_out.{leaf}"),
    ("skip_connection.{leaf}", "skip.{leaf}"),
    ("temopral_conv.conv1.2.{leaf}", "temporal_convolution.layer1.convolution.{leaf}"),
    ("temopral_conv.conv{i}.0.{leaf}", "temporal_convolution.layer{i}.norm.{leaf}"),
    ("temopral_conv.conv{i}.3.{leaf}", "temporal_convolution.layer{i}.convolution.{leaf}"),
)

_TRANSFORMER: tuple[Rule, ...] = (
    ("norm.{leaf}", "norm.{leaf}"),
    ("proj_in.{leaf}", "project_in.{leaf}"),
    ("proj_out.{leaf}", "project_out.{leaf}"),
    ("transformer_blocks.{i}.norm{j}.{leaf}", "blocks.{i}.norm{j}.{leaf}"),
    *_joined([("transformer_blocks.{i}.attn1", "blocks.{i}.self_attention")], _SELF_ATTENTION),
    *_joined([("transformer_blocks.{i}.ff", "blocks.{i}.feed_forward")], _FEED_FORWARD),
)

_CROSS_ATTENTION: tuple[Rule, ...] = (
    ("to_q.{leaf}", "to_query.{leaf}"),
    ("to_k.{leaf}", "to_text_key.{leaf}"),
    ("to_v.{leaf}", "to_text_value.{leaf}"),
    ("to_k_ip.{leaf}", "to_image_key.{leaf}"),
    ("to_v_ip.{leaf}", "to_image_value.{leaf}"),
    ("to_out.0.{leaf}", "to_output.{leaf}"),
    ("alpha", "image_scale"),
)

_CAMERA_ADAPTER: tuple[Rule, ...] = (
    ("cc_projection.{leaf}", "camera.projection.{leaf}"),  # MotionCtrl and CameraCtrl
    ("pluker_projection.{leaf}", "camera.pluecker_projection.{leaf}"),
    ("epipolar.epipolar_attn.register_tokens", "camera.epipolar.register_tokens"),
    *_joined([("epipolar.epipolar_attn", "camera.epipolar")], _SELF_ATTENTION),
)

_SPATIAL_TRANSFORMER = (
    *_TRANSFORMER,
    *_joined([("transformer_blocks.{i}.attn2", "blocks.{i}.cross_attention")], _CROSS_ATTENTION),
)

_TEMPORAL_TRANSFORMER = (
    *_TRANSFORMER,
    *_joined([("transformer_blocks.{i}.attn2", "blocks.{i}.second_self_attention")], _SELF_ATTENTION),
    *_joined([("transformer_blocks.{i}", "blocks.{i}")], _CAMERA_ADAPTER),
)

_UNET: tuple[Rule, ...] = (
    ("time_embed.{i}.{leaf}", "time_embedding.{i}.{leaf}"),
    ("fps_embedding.{i}.{leaf}", "frame_rate_embedding.{i}.{leaf}"),
    ("framestride_embed.{i}.{leaf}", "frame_rate_embedding.{i}.{leaf}"),  # older DynamiCrafter 256 files
    ("input_blocks.0.0.{leaf}", "encoder.0.convolution.{leaf}"),
    ("input_blocks.{n}.0.op.{leaf}", "encoder.{n}.convolution.{leaf}"),
    ("output_blocks.{n}.3.conv.{leaf}", "decoder.{n}.upsample.convolution.{leaf}"),
    ("output_blocks.{n}.1.conv.{leaf}", "decoder.{n}.upsample.convolution.{leaf}"),
    ("out.0.{leaf}", "output_norm.{leaf}"),
    ("out.2.{leaf}", "output_convolution.{leaf}"),
    *_joined(
        [
            ("input_blocks.{n}.0", "encoder.{n}.residual"),
            ("middle_block.0", "middle.residual_in"),
            ("middle_block.3", "middle.residual_out"),
            ("output_blocks.{n}.0", "decoder.{n}.residual"),
        ],
        _RESIDUAL_BLOCK,
    ),
    *_joined(
        [
            ("input_blocks.{n}.1", "encoder.{n}.spatial"),
            ("middle_block.1", "middle.spatial"),
            ("output_blocks.{n}.1", "decoder.{n}.spatial"),
        ],
        _SPATIAL_TRANSFORMER,
    ),
    *_joined(
        [
            ("init_attn.0", "encoder.0.temporal"),
            ("input_blocks.{n}.2", "encoder.{n}.temporal"),
            ("middle_block.2", "middle.temporal"),
            ("output_blocks.{n}.2", "decoder.{n}.temporal"),
        ],
        _TEMPORAL_TRANSFORMER,
    ),
)

_POSE_ENCODER: tuple[Rule, ...] = (
    ("encoder_conv_in.{leaf}", "input_convolution.{leaf}"),
    *_joined(
        [("encoder_down_conv_blocks.{i}.{j}", "levels.{i}.residual_blocks.{j}")],
        [
            ("in_conv.{leaf}", "widen.{leaf}"),
            ("block1.{leaf}", "convolution1.{leaf}"),
            ("block2.{leaf}", "convolution2.{leaf}"),
            ("skep.{leaf}", "skip.{leaf}"),
            ("down_opt.op.{leaf}", "downsample.{leaf}"),
        ],
    ),
    *_joined(
        [("encoder_down_attention_blocks.{i}.{j}", "levels.{i}.temporal_blocks.{j}")],
        [
            ("norms.0.{leaf}", "norm.{leaf}"),
            ("ff_norm.{leaf}", "feed_forward_norm.{leaf}"),
            *_joined([("attention_blocks.0", "self_attention")], _SELF_ATTENTION),
            *_joined([("ff", "feed_forward")], _FEED_FORWARD),
        ],
    ),
)

_RESAMPLER: tuple[Rule, ...] = (
    ("latents", "latents"),
    ("proj_in.{leaf}", "project_in.{leaf}"),
    ("proj_out.{leaf}", "project_out.{leaf}"),
    ("norm_out.{leaf}", "norm_out.{leaf}"),
    ("layers.{i}.0.norm1.{leaf}", "layers.{i}.attention.norm_tokens.{leaf}"),
    ("layers.{i}.0.norm2.{leaf}", "layers.{i}.attention.norm_latents.{leaf}"),
    ("layers.{i}.0.to_q.{leaf}", "layers.{i}.attention.to_query.{leaf}"),
    ("layers.{i}.0.to_kv.{leaf}", "layers.{i}.attention.to_key_and_value.{leaf}"),
    ("layers.{i}.0.to_out.{leaf}", "layers.{i}.attention.to_output.{leaf}"),
    ("layers.{i}.1.0.{leaf}", "layers.{i}.feed_forward.norm.{leaf}"),
    ("layers.{i}.1.1.{leaf}", "layers.{i}.feed_forward.expand.{leaf}"),
    ("layers.{i}.1.3.{leaf}", "layers.{i}.feed_forward.contract.{leaf}"),
)

_VAE_RESIDUAL_BLOCK: tuple[Rule, ...] = (
    ("nin_shortcut.{leaf}", "conv_shortcut.{leaf}"),
    ("{rest}", "{rest}"),
)

_VAE_MIDDLE: tuple[Rule, ...] = (
    *_joined(
        [("mid.block_1", "mid_block.resnets.0"), ("mid.block_2", "mid_block.resnets.1")],
        _VAE_RESIDUAL_BLOCK,
    ),
    ("mid.attn_1.norm.{leaf}", "mid_block.attentions.0.group_norm.{leaf}"),
    ("mid.attn_1.q.{leaf}", "mid_block.attentions.0.to_q.{leaf}"),
    ("mid.attn_1.k.{leaf}", "mid_block.attentions.0.to_k.{leaf}"),
    ("mid.attn_1.v.{leaf}", "mid_block.attentions.0.to_v.{leaf}"),
    ("mid.attn_1.proj_out.{leaf}", "mid_block.attentions.0.to_out.0.{leaf}"),
    ("norm_out.{leaf}", "conv_norm_out.{leaf}"),
    ("conv_in.{leaf}", "conv_in.{leaf}"),
    ("conv_out.{leaf}", "conv_out.{leaf}"),
)

_VAE: tuple[Rule, ...] = (
    ("quant_conv.{leaf}", "quant_conv.{leaf}"),
    ("post_quant_conv.{leaf}", "post_quant_conv.{leaf}"),
    *_joined([("encoder", "encoder"), ("decoder", "decoder")], _VAE_MIDDLE),
    ("encoder.down.{i}.downsample.conv.{leaf}", "encoder.down_blocks.{i}.downsamplers.0.conv.{leaf}"),
    *_joined([("encoder.down.{i}.block.{j}", "encoder.down_blocks.{i}.resnets.{j}")], _VAE_RESIDUAL_BLOCK),
    # With the levels in the same order; `_decoder_levels_reversed` does the rest.
    ("decoder.up.{i}.upsample.conv.{leaf}", "decoder.up_blocks.{i}.upsamplers.0.conv.{leaf}"),
    *_joined([("decoder.up.{i}.block.{j}", "decoder.up_blocks.{i}.resnets.{j}")], _VAE_RESIDUAL_BLOCK),
)

_FUSION: tuple[Rule, ...] = (
    ("resConfUnit1.conv{i}.{leaf}", "lateral.convolution{i}.{leaf}"),
    ("resConfUnit2.conv{i}.{leaf}", "residual.convolution{i}.{leaf}"),
    ("out_conv.{leaf}", "projection.{leaf}"),
)

_DEPTH: tuple[Rule, ...] = (
    ("pretrained.{rest}", "tower.{rest}"),
    ("depth_head.projects.{i}.{leaf}", "head.projections.{i}.{leaf}"),
    ("depth_head.resize_layers.{i}.{leaf}", "head.resizes.{i}.{leaf}"),
    # The release numbers the levels of its decoder from 1.
    *((f"depth_head.scratch.layer{level + 1}_rn.{{leaf}}", f"head.narrowings.{level}.{{leaf}}") for level in range(4)),
    *_joined([(f"depth_head.scratch.refinenet{level + 1}", f"head.fusions.{level}") for level in range(4)], _FUSION),
    ("depth_head.scratch.output_conv1.{leaf}", "head.output_in.{leaf}"),
    ("depth_head.scratch.output_conv2.0.{leaf}", "head.output_middle.{leaf}"),
    ("depth_head.scratch.output_conv2.2.{leaf}", "head.output_out.{leaf}"),
)

RULES: tuple[Rule, ...] = (
    *_joined([("model.diffusion_model", "backbone")], _UNET),
    *_joined([("pose_encoder", "camera.pose_encoder")], _POSE_ENCODER),
    *_joined([("image_proj_model", "image_projector")], _RESAMPLER),
    *_joined([("first_stage_model", "first_stage.autoencoder")], _VAE),
    ("cond_stage_model.model.{rest}", "text_encoder.tower.{rest}"),
    ("embedder.model.visual.{rest}", "image_encoder.tower.{rest}"),
    *_joined([("depth_predictor", "depth")], _DEPTH),
    *((released, f"depth.{ours}") for released, ours in _DEPTH),  # Depth Anything's own file
)


def _compiled(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    pattern = "".join(
        f"(?P<{part}>{_PLACEHOLDERS[part]})" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    return re.compile(pattern)


_TO_OURS = [(_compiled(released), ours) for released, ours in RULES]
_TO_RELEASED = [(_compiled(ours), released) for released, ours in RULES]


def _apply(rules: Iterable[tuple[re.Pattern[str], str]], name: str) -> str | None:
    for pattern, template in rules:
        match = pattern.fullmatch(name)
        if match is not None:
            return template.format(**match.groupdict())
    return None


def _decoder_levels_reversed(translated: dict[str, str]) -> dict[str, str]:
    """Renumber the autoencoder's decoder levels in translated names, whichever the direction.

    The release counts them from fine to coarse, diffusers in the order of the forward pass.
    """
    levels = [int(match[2]) for match in map(_DECODER_LEVEL.match, translated.values()) if match is not None]
    last = max(levels, default=0)
    return {
        name: _DECODER_LEVEL.sub(lambda match: f"{match[1]}{last - int(match[2])}.", new)
        for name, new in translated.items()
    }


def _last_text_block(released: Iterable[str]) -> int | None:
    blocks = [int(match[1]) for match in map(_TEXT_BLOCK.fullmatch, released) if match is not None]
    return max(blocks) if blocks else None


def _why_unused(name: str, last_text_block: int | None) -> str | None:
    block = _TEXT_BLOCK.fullmatch(name)
    if block is not None and int(block[1]) == last_text_block:
        return "last block of the text tower, never used"
    return next((reason for pattern, reason in _UNUSED if re.fullmatch(pattern, name)), None)
