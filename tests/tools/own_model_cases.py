"""Cases unlike the published ones in every size and setting, one or more of each kind.

`outputs` lists what a runner has to find in the index before it computes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FRAMES, LATENT = 3, (4, 6)
GEOMETRIES: dict[str, Any] = {
    "somewhere": {"image_hw": [32, 48], "cond_frame_index": [2], "trace_scale_factor": 0.7},
    "elsewhere": {"image_hw": [64, 64], "cond_frame_index": [0, 3], "trace_scale_factor": 2.0},
}


def geometry_arrays() -> dict[str, Any]:
    """Walk sideways while turning a little; the focal length changes along the way."""
    arrays = {}
    for name, frames in (("somewhere", FRAMES), ("elsewhere", 4)):
        batch = len(GEOMETRIES[name]["cond_frame_index"])
        height, width = GEOMETRIES[name]["image_hw"]
        poses = np.tile(np.eye(4, dtype=np.float32), (batch, frames, 1, 1))
        matrices = np.tile(np.eye(3, dtype=np.float32), (batch, frames, 1, 1))
        for clip in range(batch):
            for frame in range(frames):
                turn = 0.05 * (clip + 1) * frame
                poses[clip, frame, :3, :3] = [
                    [np.cos(turn), 0, np.sin(turn)],
                    [0, 1, 0],
                    [-np.sin(turn), 0, np.cos(turn)],
                ]
                poses[clip, frame, :3, 3] = [0.2 * frame, 0.03 * clip * frame, -0.1 * frame]
                focal = (0.8 + 0.05 * frame) * width
                matrices[clip, frame] = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
        arrays[f"{name}__RT_w2c"], arrays[f"{name}__K"] = poses, matrices
    return arrays


UNET = {
    "in_channels": 6,
    "out_channels": 3,
    "model_channels": 32,
    "attention_resolutions": [2],
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "dropout": 0.1,
    "num_head_channels": 16,
    "transformer_depth": 1,
    "context_dim": 24,
    "temporal_length": FRAMES,
    "addition_attention": True,
    "image_cross_attention_scale_learnable": True,
    "default_fs": 7,
}
POSE_ENCODER = {
    "downscale_factor": 8,
    "channels": [32, 64],
    "nums_rb": 1,
    "cin": 384,
    "ksize": 1,
    "sk": True,
    "use_conv": False,
    "compression_factor": 1,
    "temporal_attention_nhead": 4,
    "temporal_position_encoding_max_len": 16,
}
EPIPOLAR = {
    "origin_h": 32,
    "origin_w": 48,
    "num_register_tokens": 3,
    "add_small_perturbation_on_zero_T": True,
    "attention_resolution": [2],
    "epipolar_hybrid_attention": True,
}
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 24, "head_width": 12, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 3},
}
VAE = {"z_channels": 3, "ch": 32, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": []}
RESAMPLER = {
    "dim": 16,
    "depth": 1,
    "dim_head": 8,
    "heads": 2,
    "num_queries": 5,
    "embedding_dim": 24,
    "output_dim": 24,
    "ff_mult": 3,
    "video_length": FRAMES,
}


def drawn(case: str, name: str, *shape: int, transform: str = "n") -> dict[str, Any]:
    """Describe a random input."""
    return {"shape": list(shape), "dtype": "float32", "rng_key": f"{case}/{name}", "transform": transform}


def literal(*values: int) -> dict[str, Any]:
    """Describe a vector of integers."""
    return {"shape": [len(values)], "dtype": "int64", "values": list(values)}


def denoiser(case: str, kind: str, image_tokens: int, **settings: Any) -> dict[str, Any]:
    """Describe a case of a denoiser on one clip."""
    unet = {**UNET, **settings.pop("unet", {})}
    inputs = {
        "x": drawn(case, "x", 1, 6, FRAMES, *LATENT),
        "context": drawn(case, "context", 1, 77 + image_tokens, 24),
        "timesteps": literal(412),
    }
    return {"kind": kind, "hyper_parameters": {"unet": unet, **settings}, "inputs": inputs}


def whole(case: str, published_class: str, camera: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Describe a case of a whole model on one clip."""
    height, width = GEOMETRIES["somewhere"]["image_hw"]
    hyper_parameters = {
        "target": f"Any.package.{published_class}",
        "unet": UNET,
        "clip_model_cfg": CLIP,
        "ddconfig": {**VAE, "ch_mult": [1, 1, 1, 1]},
        "resampler": RESAMPLER,
        "camera": camera,
        "geometry": "somewhere",
        "parameterization": "v",
        "use_dynamic_rescale": True,
        "base_scale": 0.6,
        "rescale_betas_zero_snr": True,
        "scale_factor": 0.3,
        "linear_start": 0.001,
        "linear_end": 0.01,
        "timesteps": 500,
        **settings,
    }
    inputs = {
        "video": drawn(case, "video", 1, 3, FRAMES, height, width, transform="clip(0.5*n,-1,1)"),
        "caption": ["two doors"],
        "fs": literal(5),
        "cond_frame_index": [1],
        "per_frame_scale": drawn(case, "per_frame_scale", 1, FRAMES, transform="abs(n)+0.5"),
        "posterior_noise": drawn(case, "posterior_noise", FRAMES, 3, *LATENT),
        "timesteps": literal(77),
        "noise": drawn(case, "noise", 1, 3, FRAMES, *LATENT),
        "x_noisy": drawn(case, "x_noisy", 1, 3, FRAMES, *LATENT),
    }
    return {"kind": "end_to_end", "hyper_parameters": hyper_parameters, "inputs": inputs}


CAMI2V = {"pose_encoder": POSE_ENCODER, "epipolar": EPIPOLAR, "add_type": "add_to_main_branch"}
REALCAM = {
    "pose_encoder_config": {"params": POSE_ENCODER},
    "epipolar_config": EPIPOLAR,
    "add_type": "add_into_temporal_attn",
}
FLAG_SETS = [
    {"epipolar_hybrid_attention_v2": True},
    {"add_small_perturbation_on_zero_T": True, "only_self_pixel_on_current_frame": True},
]

CASES: dict[str, dict[str, Any]] = {
    "a": denoiser("a", "unet_plain", 16 * FRAMES, unet={"image_cross_attention_scale_learnable": False}),
    "b": denoiser("b", "unet_plain", 5, unet={"attention_resolutions": [1], "addition_attention": False}),
    "c": denoiser("c", "cami2v", 9, geometry="somewhere", **CAMI2V),
    "d": denoiser("d", "cameractrl", 9, geometry="somewhere", pose_encoder=POSE_ENCODER),
    "e": denoiser("e", "motionctrl", 9, geometry="somewhere", pose_encoder=None, pose_dim=12),
    "f": {
        "kind": "epipolar_mask",
        "hyper_parameters": {"geometry": "elsewhere", "flag_sets": FLAG_SETS, "attention_resolution": [2, 4]},
        "inputs": {},
    },
    "g": {
        "kind": "pose_encoder",
        "hyper_parameters": {"pose_encoder": {**POSE_ENCODER, "channels": [16, 16, 48], "nums_rb": 2}},
        "inputs": {"plucker": drawn("g", "plucker", 1, 6, 5, 32, 64)},
    },
    "h": {
        "kind": "resampler",
        "hyper_parameters": {"resampler": RESAMPLER},
        "inputs": {"x": drawn("h", "x", 2, 9, 24)},
    },
    "i": {
        "kind": "autoencoder_kl",
        "hyper_parameters": {"ddconfig": VAE, "embed_dim": 3},
        "inputs": {
            "x": drawn("i", "x", 2, 3, 16, 24),
            "z": drawn("i", "z", 2, 3, *LATENT),
            "noise": drawn("i", "noise", 2, 3, *LATENT),
        },
        "outputs": dict.fromkeys(["moments", "mean", "logvar", "mode", "sample", "decode"]),
    },
    "j": {
        "kind": "openclip_text",
        "hyper_parameters": {"model_cfg": CLIP},
        "inputs": {
            "texts": ["a photo of a cat"],
            "tokens": {"shape": [1, 77], "values": [[49406, 320, 1125, 539, 320, 2368, 49407, *[0] * 70]]},
        },
        "outputs": dict.fromkeys(["penultimate", "last"]),
    },
    "k": {
        "kind": "openclip_image_v2",
        "hyper_parameters": {"model_cfg": CLIP},
        "inputs": {"image": drawn("k", "image", 2, 3, 300, 80)},
        "outputs": {"preprocessed_sub": {"shape": [1, 3, 28, 32]}, "preprocessed_corner": {"shape": [2, 3, 5, 9]}},
    },
    "l": whole("l", "RealCam_I2V", REALCAM),
    "m": whole("m", "DynamiCrafter", {}, parameterization="eps", rescale_betas_zero_snr=False),
}
