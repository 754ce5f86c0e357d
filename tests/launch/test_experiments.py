"""The published runs: their settings, the full-size models they describe, and a training step of each at tiny width."""

from __future__ import annotations

import functools
import gzip
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open

from cami2v.camera_control.cami2v import CamI2V
from cami2v.checkpoints.released_names import our_names, released_names
from cami2v.geometry.epipolar import EpipolarOptions
from cami2v.model import VideoDiffusion
from launch.build import build_skeleton
from launch.compose import compose_config, conf_folder, instantiate_part
from launch.load_model import held_out_data
from launch.training_plan import prepare
from tests.warm_processes import run_module

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("CAMI2V_GOLDEN", ROOT.parent / "shared" / "golden"))

SHARED: dict[str, Any] = {
    "seed": 20230211,
    "trainer.max_steps": 50_000,
    "trainer.global_batch_size": 64,
    "trainer.micro_batch_size": 1,
    "trainer.gradient_clip_norm": 0.5,
    "optimizer.learning_rate": 1e-4,
    "optimizer.betas": [0.9, 0.999],
    "optimizer.epsilon": 1e-8,
    "optimizer.weight_decay": 1e-2,
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 0,
    "engine.kind": "zero1",
    "engine.precision": "fp16",
    "engine.allow_tf32": True,
    "data.frames": 16,
    "data.frame_stride": [1, 10],
    "data.evaluation_frame_stride": 8,
    "data.principal_point": "published",
    "diffusion.condition_drop_probability": 0.05,
    "diffusion.schedule.timesteps": 1000,
    "diffusion.schedule.kind": "linear",
    "diffusion.schedule.beta_start": 0.00085,
    "diffusion.schedule.beta_end": 0.012,
    "backbone.widths": [320, 640, 1280, 1280],
    "backbone.residual_blocks": 2,
    "backbone.attention_downsamples": [1, 2, 4],
    "backbone.head_width": 64,
    "backbone.transformer_depth": 1,
    "backbone.context_width": 1024,
    "backbone.dropout": 0.1,
    "backbone.temporal_dropout": 0.1,
    "backbone.frames": 16,
    "backbone.initial_attention": True,
    "first_stage.scale": 0.18215,
    "first_stage.channels": 128,
    "first_stage.channel_multipliers": [1, 2, 4, 4],
    "encoders.projector.queries_per_frame": 16,
    "encoders.projector.depth": 4,
    "encoders.projector.num_heads": 12,
    "sampler.steps": 25,
    "sampler.eta": 1.0,
    "sampler.spacing": "uniform_trailing",
    "sampler.guidance.scale": 7.5,
    "sampler.guidance.rescale": 0.7,
    "sampler.guidance.camera_scale": 1.0,
}
AT_256: dict[str, Any] = {
    "data.resolution": [256, 256],
    "diffusion.prediction": "eps",
    "diffusion.frame_rate": "stride",
    "diffusion.schedule.zero_terminal_snr": False,
    "diffusion.schedule.dynamic_rescale_base": 1.0,
    "backbone.learnable_image_scale": True,
}
AT_512: dict[str, Any] = {
    "data.resolution": [320, 512],
    "diffusion.prediction": "v",
    "diffusion.frame_rate": "fps",
    "diffusion.schedule.zero_terminal_snr": True,
    "diffusion.schedule.dynamic_rescale_base": 0.7,
    "backbone.learnable_image_scale": False,
}
FIRST_FRAME = {"diffusion.random_condition_frame": False, "data.scale_policy": "relative"}
ANY_FRAME = {"diffusion.random_condition_frame": True, "data.scale_policy": "relative"}
POSE_ENCODER: dict[str, Any] = {
    "camera.pose_encoder.downscale": 8,
    "camera.pose_encoder.widths": [320, 640, 1280, 1280],
    "camera.pose_encoder.residual_blocks": 2,
    "camera.pose_encoder.num_heads": 8,
    "camera.pose_encoder.max_frames": 16,
}
EPIPOLAR: dict[str, Any] = POSE_ENCODER | {
    "camera.insertion": "main_branch",
    "camera.register_tokens": 4,
    "camera.perturb_same_frame": True,
}
ALL_LEVELS = {"camera.attention_levels": [1, 2, 4, 8], "camera.full_attention_levels": []}
LOWER_LEVELS = {"camera.attention_levels": [2, 4, 8], "camera.full_attention_levels": [1]}
METRES = {"data.scale_policy": "metric"}

PUBLISHED: dict[str, dict[str, Any]] = {
    "dynamicrafter_256": AT_256,
    "dynamicrafter_512": AT_512,
    "motionctrl_256": AT_256 | FIRST_FRAME,
    "cameractrl_256": AT_256 | FIRST_FRAME | POSE_ENCODER,
    "cami2v_256": AT_256 | ANY_FRAME | EPIPOLAR | ALL_LEVELS,
    "cami2v_512": AT_512 | ANY_FRAME | EPIPOLAR | LOWER_LEVELS,
    "realcam_i2v_256": AT_256 | ANY_FRAME | EPIPOLAR | ALL_LEVELS | METRES,
    "realcam_i2v_512": AT_512 | ANY_FRAME | EPIPOLAR | LOWER_LEVELS | METRES,
}
"""By experiment, the values of the published configuration files."""

OURS: dict[str, dict[str, Any]] = {"cami2v_512_masked": AT_512 | ANY_FRAME | EPIPOLAR | ALL_LEVELS}
"""By experiment, what nobody has published: the values that make it what its name says."""

MANIFESTS = {
    "dynamicrafter_256": "000_dynamicrafter_256x256",
    "dynamicrafter_512": "000_dynamicrafter_512x320",
    "motionctrl_256": "001_motionctrl_256x256",
    "cameractrl_256": "002_cameractrl_256x256",
    "cami2v_256": "003_cami2v_256x256",
    "cami2v_512": "003_cami2v_512x320",
    "realcam_i2v_256": "training__004_realcam-i2v_256x256",
    "realcam_i2v_512": "training__004_realcam-i2v_512x320",
}
TRAINED_PARAMETERS = {
    "motionctrl_256": 63_444_608,
    "cameractrl_256": 211_665_280,
    "cami2v_256": 261_289_280,
    "cami2v_512": 261_289_280,
    "realcam_i2v_256": 261_289_280,
    "realcam_i2v_512": 261_289_280,
}


@functools.cache
def manifest(experiment: str) -> dict[str, dict[str, Any]]:
    """Return the released parameters by name: shape, kind, trainable."""
    path = GOLDEN / "manifests" / f"{MANIFESTS[experiment]}.json.gz"
    if not path.is_file():
        pytest.skip(f"no published parameter list {path} (set CAMI2V_GOLDEN)")
    return {entry["name"]: entry for entry in json.loads(gzip.decompress(path.read_bytes()))["entries"]}


def trained_as_published(experiment: str) -> set[str]:
    return {name for name, entry in manifest(experiment).items() if entry["trainable"]}


@functools.cache
def on_meta(*overrides: str) -> VideoDiffusion:
    return build_skeleton(compose_config("train", overrides))


def test_every_published_run_has_an_experiment() -> None:
    written = {path.stem for path in (conf_folder() / "experiment").glob("*.yaml")} - {"demo"}
    assert written == set(PUBLISHED | OURS)


@pytest.mark.parametrize("experiment", PUBLISHED | OURS)
def test_settings_are_the_published_ones(experiment: str) -> None:
    config = compose_config("train", [f"experiment={experiment}"])
    expected = SHARED | (PUBLISHED | OURS)[experiment]
    actual = {key: OmegaConf.select(config, key) for key in expected}
    assert {k: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v for k, v in actual.items()} == expected
    assert config.name == experiment
    assert config.trainer.trainable == ("all" if experiment.startswith("dynamicrafter") else "camera")


def test_evaluation_takes_the_stride_of_held_out_clips() -> None:
    published = held_out_data(compose_config("train", ["experiment=cami2v_256"]))
    assert published["frame_stride"] == 8
    assert "evaluation_frame_stride" not in published
    assert held_out_data(compose_config("train", ["data.frame_stride=3"]))["frame_stride"] == 3


@pytest.mark.parametrize("experiment", PUBLISHED)
def test_the_full_size_model_has_the_released_parameters(experiment: str) -> None:
    model = on_meta(f"experiment={experiment}")
    ours = our_names(manifest(experiment)).ours
    assert {name for name, _ in model.named_parameters()} == set(ours.values())
    if experiment in TRAINED_PARAMETERS:
        trained = model.select_trainable("camera")
        assert set(trained) == {ours[name] for name in trained_as_published(experiment)}
        parameters = dict(model.named_parameters())
        assert sum(parameters[name].numel() for name in trained) == TRAINED_PARAMETERS[experiment]
    else:
        assert trained_as_published(experiment) == set()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", PUBLISHED)
def test_size_tiny_keeps_every_name(experiment: str) -> None:
    full, tiny = on_meta(f"experiment={experiment}"), on_meta(f"experiment={experiment}", "size=tiny")
    assert {name for name, _ in tiny.named_parameters()} == {name for name, _ in full.named_parameters()}
    assert sum(parameter.numel() for parameter in tiny.parameters()) < 35e6


def test_the_command_line_wins_over_size_tiny() -> None:
    config = compose_config(
        "train", ["experiment=cami2v_256", "size=tiny", "engine=zero2", "data.resolution=[128,64]", "data.frames=6"]
    )
    assert (config.engine.kind, config.engine.precision) == ("zero2", "fp32")
    assert list(config.data.resolution) == [128, 64]
    assert config.backbone.frames == 6


@pytest.mark.parametrize(
    ("override", "attribute", "value"),
    [
        ("camera.insertion=temporal_attention", "insertion", "temporal_attention"),
        ("camera.register_tokens=0", "register_tokens", 0),
        ("camera.pose_encoder=null", "pose_encoder", None),
        ("camera.attention_levels=[4,8] camera.full_attention_levels=[1,2]", "full_attention_levels", (1, 2)),
        ("camera.keys=condition_frame", "condition_frame_only", True),
        ("camera.head_compression=2", "head_compression", 2),
        ("camera.perturb_same_frame=false", "perturb_same_frame", False),
        *(
            (f"camera.mask_options.{field.name}=true", "mask_options", EpipolarOptions(**{field.name: True}))
            for field in fields(EpipolarOptions)
        ),
    ],
)
def test_options_of_the_published_configs_are_typed_fields(override: str, attribute: str, value: Any) -> None:
    config = compose_config("train", ["experiment=cami2v_256", "size=tiny", *override.split()])
    with torch.device("meta"):
        camera = instantiate_part(config.camera, "camera")
    assert isinstance(camera, CamI2V)
    assert getattr(camera, attribute) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("camera.insertion=sideways", "camera.insertion: got 'sideways' (str), expected one of 'main_branch'"),
        ("camera.keys=none", "camera.keys: got 'none' (str), expected one of 'all_frames', 'condition_frame'"),
        ("camera.register_tokens=four", "camera.register_tokens: got 'four' (str), expected int"),
        ("camera.head_compression=half", "camera.head_compression: got 'half' (str), expected int"),
        ("camera.mask_options.hybrid=maybe", "camera.mask_options.hybrid: got 'maybe' (str), expected bool"),
        ("camera.mask_options.hybird=true", "camera.mask_options.hybird: no such key"),
        ("camera.attention_levels=[one]", "camera.attention_levels[0]: got 'one' (str), expected int"),
    ],
)
def test_a_wrong_option_is_one_line_with_its_key(override: str, message: str) -> None:
    config = compose_config("train", ["experiment=cami2v_256", override])
    with pytest.raises(ValueError, match=".") as caught:
        instantiate_part(config.camera, "camera")
    assert str(caught.value).startswith(message)


def packed(folder: Path, *, metric: bool) -> Path:
    """Render and pack a world of eight short clips; only its depth maps know metres."""
    made = run_module("launch.pack", [
        f"raw={folder}/raw", f"output={folder}/shards", f"world.depth={str(metric).lower()}",
        "world.rooms=1", "world.sources={train: 2, test: 1}", "world.clips_per_source=2", "world.frames_per_clip=4",
        "world.lead_frames=0", "world.width=160", "world.height=96", "world.supersampling=1", "pack.min_frames=4",
        "pack.min_shards=4",
    ])  # fmt: skip
    assert made.returncode == 0, made.stderr[-3000:]
    return folder / "shards"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packed(tmp_path_factory.mktemp("metric"), metric=True)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", PUBLISHED)
def test_a_step_of_two_processes_under_zero2_trains_what_the_release_trained(
    experiment: str, shards: Path, tmp_path: Path
) -> None:
    settings = [
        f"experiment={experiment}", "size=tiny", f"data={shards}", f"paths.runs={tmp_path}", "engine=zero2",
        "trainer.max_steps=1", "trainer.global_batch_size=2", "trainer.validate_every_steps=0", "logging=off",
    ]  # fmt: skip
    stepped = run_module("launch.train", settings, processes=2)
    assert stepped.returncode == 0, stepped.stderr[-3000:]
    run = tmp_path / experiment
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert row["loss"] > 0
    assert row["gradient_norm"] > 0
    with safe_open(str(run / "checkpoints" / "step-00000001" / "trainable.safetensors"), framework="pt") as file:
        trained = set(file.keys())
    if experiment.startswith("dynamicrafter"):
        # The release trained nothing; this is our recipe for a baseline on equal data.
        names = {name for name, _ in on_meta(f"experiment={experiment}").named_parameters()}
        assert trained == {name for name in names if name.startswith(("backbone.", "image_projector."))}
    else:
        assert set(released_names(trained).values()) == trained_as_published(experiment)


@pytest.mark.slow
def test_realcam_says_what_data_it_needs(tmp_path: Path) -> None:
    relative = packed(tmp_path, metric=False)
    given = ["size=tiny", f"data={relative}", f"paths.runs={tmp_path}/runs"]
    with pytest.raises(ValueError, match=r"^data.scale_policy=metric: not every clip of .* has a metric scale; pack a"):
        prepare(compose_config("train", ["experiment=realcam_i2v_256", *given]))
    with pytest.raises(ValueError, match=r"^data.scale_policy=relative: RealCamI2V is trained in metres; set data"):
        prepare(compose_config("train", ["experiment=realcam_i2v_256", "data.scale_policy=relative", *given]))
