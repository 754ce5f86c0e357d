"""Accelerate, and DeepSpeed below it, as an engine's settings say."""

from __future__ import annotations

import os
import warnings
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)

from cami2v.training import environment
from cami2v.training.environment import EngineKind


def build_accelerator(
    *,
    kind: EngineKind,
    precision: str,
    timeout_minutes: int,
    accumulation_steps: int,
    micro_batch_size: int,
    gradient_clip_norm: float | None,
) -> Accelerator:
    """Set Accelerate up, and join the process group where a launcher started this process."""
    cuda = torch.cuda.is_available()
    zero = kind.zero_stage
    timeout = timedelta(minutes=timeout_minutes)
    handlers: list[Any] = []
    if "LOCAL_RANK" in os.environ:
        # Named, because Accelerate finds DeepSpeed no backend without a GPU (and `cpu=True` would switch it off).
        handlers.append(InitProcessGroupKwargs(backend="nccl" if cuda else "gloo", timeout=timeout))
    if not zero:
        handlers.append(DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True))
    plugin = None
    if zero:
        plugin = DeepSpeedPlugin(
            hf_ds_config=deepspeed_config(
                kind=kind,
                precision=precision,
                accumulation_steps=accumulation_steps,
                micro_batch_size=micro_batch_size,
                gradient_clip_norm=gradient_clip_norm,
            ),
            zero3_init_flag=False,
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*OMP_NUM_THREADS.*")
        return Accelerator(
            cpu=not cuda and not zero,
            mixed_precision="no" if precision == "fp32" else precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulation_steps),
            deepspeed_plugin=plugin,
            kwargs_handlers=handlers,
        )


def deepspeed_config(
    *,
    kind: EngineKind,
    precision: str,
    accumulation_steps: int,
    micro_batch_size: int,
    gradient_clip_norm: float | None,
) -> dict[str, Any]:
    """Write DeepSpeed's configuration out in full, so that no launcher or default fills in another value."""
    host = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "train_batch_size": micro_batch_size * accumulation_steps * environment.world_size(),
        "gradient_accumulation_steps": accumulation_steps,
        # Under DeepSpeed clip_grad_norm_ only reads the norm; this is what clips. 0 means not at all.
        "gradient_clipping": gradient_clip_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        # Offloaded updates too are PyTorch's AdamW: DeepSpeed's own needs a compiler and rounds differently.
        "zero_force_ds_cpu_optimizer": False,
        "fp16": {"enabled": precision == "fp16"},
        # Without this check ZeRO-1 and 2 would make an update with a gradient that is not finite.
        "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
        "zero_optimization": {
            "stage": kind.zero_stage,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
            "stage3_gather_16bit_weights_on_model_save": False,
            **({"offload_optimizer": host, "offload_param": host} if kind.offloads else {}),
        },
    }
