"""Whole models against the published ones: clips, captions and poses to conditions, prediction, loss and gradients."""

from __future__ import annotations

import dataclasses
import math

import torch
from einops import rearrange
from torch import Tensor

from cami2v.batch import ClipBatch, Conditioning
from cami2v.camera_control.none import NoCameraControl
from cami2v.checkpoints.released_names import released_names
from cami2v.diffusion.prediction import Prediction
from cami2v.diffusion.schedule import NoiseSchedule
from cami2v.model import VideoDiffusion
from tools.parity.checks import Checks
from tools.parity.encoders import build_first_stage, build_image_encoder, build_text_encoder
from tools.parity.network_cases import ModelCase, PublishedDraws, compare_output, compare_tap
from tools.parity.networks import tokens_of_every_frame
from tools.parity.published_settings import build_camera_control, build_resampler, build_unet
from tools.parity.weights import expect_none, give_weights

PREDICTION, LOSS, GRADIENT = 1e-3, 1e-4, 1e-2
"""Looser than for a denoiser alone: masks are rebuilt inside, where a cell may fall on the far side of a threshold."""

METHODS = {
    "DynamiCrafter": "unet_plain",
    "MotionCtrl": "motionctrl",
    "CameraCtrl": "cameractrl",
    "CamI2V": "cami2v",
    "RealCam_I2V": "realcam_i2v",
}
"""Camera method of each published model class."""


def whole_model(case: ModelCase) -> Checks:
    """Compare encodings, a prediction, the loss, what trains, and the gradients of all of it."""
    checks = Checks()
    model = build_model(case).eval()
    give_weights(checks, case, "whole_module", model)
    ours = released_names(name for name, _ in model.named_parameters())
    trainable = [] if isinstance(model.camera, NoCameraControl) else model.select_trainable("camera")
    trained = {ours[name]: model.get_parameter(name) for name in trainable}
    expect_none(checks, "trained here only", trained.keys() - set(case.entry["trainable"]))
    expect_none(checks, "trained there only", set(case.entry["trainable"]) - trained.keys())

    draws, batch, condition_frame = StoredDraws(case), clip_batch(case), case.condition_frame
    clips = model.encode(batch, draws, condition_frame=condition_frame, drop=False)
    compare_encodings(checks, case, clips.latents, clips.conditioning)
    conditioning = dataclasses.replace(
        clips.conditioning,
        image_tokens=tokens_of_every_frame(clips.conditioning.image_tokens, clips.latents.shape[2]),
    )
    condition = model.camera.encode(batch.cameras, condition_frame=condition_frame, draws=draws)
    with torch.no_grad():
        applied = model.backbone(case.input("x_noisy"), case.input("timesteps"), conditioning, condition)
    compare_output(checks, case, "apply_model", applied, relative=PREDICTION, maximum=10 * PREDICTION)

    noisy = model.add_noise(clips, draws)
    predicted = model.backbone(noisy.noisy, noisy.timesteps, conditioning, condition)
    errors = model.objective.per_sample(predicted, noisy.target)
    loss = model.objective.combine(errors, noisy.timesteps, schedule=model.schedule, prediction=model.prediction)
    compare_loss(checks, case, loss)
    if trained:
        loss.backward()
        compare_gradients(checks, case, {name: parameter.grad for name, parameter in trained.items()})
    return checks


def compare_encodings(checks: Checks, case: ModelCase, latents: Tensor, conditioning: Conditioning) -> None:
    """Compare what the clips and captions are encoded to."""
    compare_output(checks, case, "z", latents)
    compare_output(checks, case, "c_concat_t0", conditioning.image_latents[:, :, :1])
    compare_output(checks, case, "c_crossattn_img", conditioning.image_tokens)
    compare_tap(checks, case, "c_crossattn", torch.cat([conditioning.text_tokens, conditioning.image_tokens], dim=1))


def compare_loss(checks: Checks, case: ModelCase, loss: Tensor) -> None:
    """Compare the training loss."""
    checks.at_most("loss", abs(loss.item() - case.entry["loss"]) / abs(case.entry["loss"]), LOSS)


def compare_gradients(checks: Checks, case: ModelCase, gradients: dict[str, Tensor | None]) -> None:
    """Compare L2 norm and sum of every gradient; report the worst of each."""
    stored: dict[str, tuple[float, float]] = case.entry["grads"]
    missing = [name for name in stored if gradients.get(name) is None]
    expect_none(checks, "gradients missing", missing)
    # A gradient that vanishes next to all others has no digits of its own.
    negligible = 1e-6 * math.hypot(*(norm for norm, _ in stored.values()))
    norms, sums = {}, {}
    for name, (norm, total) in stored.items():
        gradient = gradients.get(name)
        if gradient is not None:
            norms[name] = abs(gradient.double().norm().item() - norm) / max(norm, negligible)
            sums[name] = abs(gradient.double().sum().item() - total) / max(abs(total), norm, negligible)
    for quantity, errors in (("norm", norms), ("sum", sums)):
        worst = max(errors, key=errors.__getitem__, default="")
        checks.at_most(f"gradient {quantity}s, worst of {len(errors)}: {worst}", errors.get(worst, 0.0), GRADIENT)


class StoredDraws(PublishedDraws):
    """Returns a case's published noise and timesteps instead of draws."""

    def normal(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Return the noise of the posterior, of the diffusion or of the geometry's perturbation."""
        if purpose == "posterior":
            return rearrange(self.case.input("posterior_noise"), "(b f) c h w -> b f c h w", f=shape[0])
        if purpose == "noise":
            return self.case.input("noise")
        return super().normal(purpose, shape)

    def integers(self, purpose: str, high: int) -> Tensor:
        """Return the timesteps."""
        assert purpose == "timestep", purpose
        return self.case.input("timesteps")


def method_of(case: ModelCase) -> str:
    """Read the camera method off the published class. Raises ValueError for another class."""
    published = case.hyper_parameters["target"].rsplit(".", 1)[-1]
    if published not in METHODS:
        raise ValueError(f"{case.name}: target is {published}; known classes are {', '.join(METHODS)}")
    return METHODS[published]


def build_model(case: ModelCase) -> VideoDiffusion:
    """Build the model that a case describes."""
    settings = case.hyper_parameters
    camera = settings["camera"]
    encoder = camera.get("pose_encoder_config")
    control = build_camera_control(
        method_of(case),
        {
            **camera,
            "pose_encoder": encoder and encoder["params"],
            "epipolar": camera.get("epipolar_config"),
            "add_type": camera.get("add_type"),
        },
        levels=len(settings["unet"]["channel_mult"]),
        trace_scale=case.geometry["trace_scale_factor"],
    )
    return VideoDiffusion(
        first_stage=build_first_stage(settings["ddconfig"], scale=settings["scale_factor"]),
        text_encoder=build_text_encoder(settings["clip_model_cfg"]["text_cfg"]),
        image_encoder=build_image_encoder(settings["clip_model_cfg"]["vision_cfg"]),
        image_projector=build_resampler(settings["resampler"]),
        camera=control,
        backbone=build_unet(settings["unet"], control.adapter_for),
        schedule=NoiseSchedule(
            timesteps=settings["timesteps"],
            beta_start=settings["linear_start"],
            beta_end=settings["linear_end"],
            kind="linear",
            zero_terminal_snr=settings["rescale_betas_zero_snr"],
            dynamic_rescale_base=settings["base_scale"] if settings["use_dynamic_rescale"] else 1.0,
        ),
        prediction=Prediction(settings["parameterization"]),
        # Whatever a case calls its rate, the stride is handed on as it is.
        frame_rate="stride",
        condition_drop_probability=0.0,
        random_condition_frame=False,
    )


def clip_batch(case: ModelCase) -> ClipBatch:
    """Arrange the case's clips; only RealCam-I2V reads their metric scale."""
    cameras = case.cameras()
    if method_of(case) == "realcam_i2v" and "per_frame_scale" in case.inputs:
        cameras = dataclasses.replace(cameras, translation_scale=case.input("per_frame_scale").double())
    video, frame_rate = case.input("video"), case.input("fs")
    batch, frames = video.shape[0], video.shape[2]
    return ClipBatch(
        clip_ids=tuple(f"clip {row}" for row in range(batch)),
        captions=tuple(case.inputs["caption"]),
        seeds=torch.arange(batch),
        video=video,
        cameras=cameras,
        frame_indices=torch.arange(frames).repeat(batch, 1),
        frame_stride=frame_rate,
        frames_per_second=frame_rate.float(),
    )
