"""The model that `cami2v evaluate` judges: loaded as `cami2v sample` loads it, and animating clips of a split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import DictConfig
from torch import Tensor

from cami2v.batch import ClipBatch
from cami2v.compilation import CompileMode, check_compilation, check_graphs
from cami2v.geometry.pose_scale import ScalePolicy
from cami2v.inference.pipeline import Pipeline
from cami2v.inference.request import Precision
from cami2v.inference.sampler_settings import SamplerSettings
from cami2v.inference.sampling_plan import Branches, SamplingPlan
from cami2v.inference.sampling_settings import SamplingSettings
from cami2v.inference.scene import in_metres
from cami2v.inference.scene_mask import SceneMaskRule
from launch.compose import instantiate_part, plain, settings
from launch.depth_network import NetworkDepth, NetworkSettings, network_depth
from launch.load_model import Source, held_out_data, load_model
from launch.load_pipeline import source_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """Keys that mean in conf/evaluate.yaml what they mean in conf/sample.yaml."""

    precision: Precision
    offload: bool
    compile: str | None
    compile_mode: CompileMode | None
    branches: Branches
    decode_frames: int | None
    overlap: int
    paste_image: bool
    noise_shaping: int | None
    scene_mask: SceneMaskRule | None
    metres_per_unit: float | None

    def __post_init__(self) -> None:
        """Raise ValueError for what this machine cannot compile."""
        check_compilation(self.compile, self.compile_mode)
        check_graphs(self.compile, self.compile_mode, on_gpu=torch.cuda.is_available())
        if self.scene_mask is not None and self.noise_shaping is None:
            raise ValueError("scene_mask: only noise_shaping uses it; set noise_shaping=900 as well")

    def sampling(self) -> SamplingSettings:
        """Return what the pipeline's plan is made of."""
        names = {field.name for field in fields(self)} & {field.name for field in fields(SamplingSettings)}
        return SamplingSettings(**{name: getattr(self, name) for name in names})

    def identity(self) -> dict[str, Any]:
        """Return what changes frames and is not as usual: what is usual was not written down before it could be set."""
        return {name: value for name, value in asdict(self).items() if name in USUAL and value != USUAL[name]}


USUAL: dict[str, Any] = {
    "precision": "fp32", "compile": None, "compile_mode": None, "branches": "separate", "decode_frames": None,
    "overlap": 4, "paste_image": False, "noise_shaping": None, "scene_mask": None, "metres_per_unit": None,
}  # fmt: skip
"""Values of conf/evaluate.yaml; offload changes no frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedModel:
    """What a checkpoint contributes."""

    pipeline: Pipeline
    settings: SamplingSettings
    data: dict[str, Any]
    identity: dict[str, Any]

    def plan(self, frames: int) -> SamplingPlan:
        """Return how clips of so many frames are sampled. Raises ValueError for settings that do not go with it."""
        plan = self.settings.plan(self.pipeline.facts(), frames=frames)
        if plan.noise_shaping is not None and self.pipeline.depth_network is None:
            raise ValueError(
                "noise_shaping: this model has no depth network; add depth=depth_anything_v2_hypersim_vitl "
                "depth_weights=<file>"
            )
        return plan

    def animate(self, batch: ClipBatch) -> Float[Tensor, "1 3 frames height width"]:
        """Make the video of one clip, in [-1, 1]."""
        plan = self.plan(batch.video.shape[2])
        if plan.noise_shaping is not None:
            metric = self.pipeline.facts().defaults.scale_policy == ScalePolicy.METRIC
            batch = in_metres(batch, 1.0 if metric else self.settings.metres_per_unit or 1.0)
        return self.pipeline.animate(batch, plan)


def load_evaluated(config: DictConfig) -> EvaluatedModel:
    """Load `checkpoint`. Raises ValueError for one that does not load, and for settings it cannot be sampled with."""
    own = {key: config[key] for key in GenerationSettings.__dataclass_fields__}
    chosen = settings(DictConfig(own), GenerationSettings, "evaluate")
    keys = {key: config[key] for key in Source.__dataclass_fields__}
    loaded = load_model(settings(DictConfig(keys), Source, "evaluate"), device="cpu")
    sampler_node = loaded.config.sampler if config.get("sampler") is None else config.sampler
    network: NetworkDepth | None = None
    if chosen.noise_shaping is not None and config.get("depth"):
        network = network_depth(config.depth, NetworkSettings(depth_weights=config.depth_weights, device="auto"))
    pipeline = Pipeline(
        source_of(loaded),
        precision=chosen.precision,
        offload=chosen.offload,
        compile=chosen.compile,
        compile_mode=chosen.compile_mode,
        sampler=SamplerSettings.of(instantiate_part(sampler_node, "sampler")),
        depth_network=None if network is None else network.network,
    )
    identity = {
        **loaded.identity,
        "sampler": plain(sampler_node, "sampler"),
        **chosen.identity(),
        **({} if network is None else {"depth": dict(network.description())}),
    }
    return EvaluatedModel(
        pipeline=pipeline, settings=chosen.sampling(), data=held_out_data(loaded.config), identity=identity
    )
