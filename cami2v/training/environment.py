"""What the launcher (torchrun, `accelerate launch`, srun, or nobody) says through environment variables."""

from __future__ import annotations

import logging
import os
import socket
from enum import StrEnum

import torch


class EngineKind(StrEnum):
    """How parameters, gradients and optimizer states are spread over processes."""

    SINGLE = "single"
    DDP = "ddp"
    ZERO1 = "zero1"
    ZERO2 = "zero2"
    ZERO3 = "zero3"
    ZERO3_OFFLOAD = "zero3_offload"

    @property
    def zero_stage(self) -> int:
        """DeepSpeed ZeRO stage; 0 where DeepSpeed is not used."""
        return int(self.value.removeprefix("zero")[0]) if self.value.startswith("zero") else 0

    @property
    def offloads(self) -> bool:
        """Whether parameters and optimizer states wait in host memory."""
        return self is EngineKind.ZERO3_OFFLOAD


def world_size() -> int:
    """Return how many processes the launcher started; 1 where there is no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number among all processes."""
    return int(os.environ.get("RANK", "0"))


def check_environment(
    kind: EngineKind, precision: str, clip_norm: float | None, *, accumulation_steps: int, processes: int
) -> None:
    """Refuse a launcher that asks for something else than the config does.

    Accelerate lets several of its variables overrule what a program passes. Agreeing or failing leaves one truth.
    Raises ValueError naming the variable, the config key and the fix.
    """
    if kind is EngineKind.SINGLE and processes > 1:
        raise ValueError(
            f"engine.kind: got single, but the run has {processes} processes; use engine=ddp, zero1, zero2, zero3 "
            "or zero3_offload, or one process"
        )
    deepspeed = _flag("ACCELERATE_USE_DEEPSPEED")
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", kind.zero_stage))
    if _launched_by_accelerate() and (deepspeed != (kind.zero_stage > 0) or (deepspeed and stage != kind.zero_stage)):
        launched = f"zero{stage}" if deepspeed else "no DeepSpeed"
        raise ValueError(
            f"engine.kind: got {kind.value}, but accelerate launch was configured for {launched}; "
            f"use --config_file launch/accelerate/{kind.value}.yaml, or engine={f'zero{stage}' if deepspeed else 'ddp'}"
        )
    for flag in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_MEGATRON_LM", "ACCELERATE_USE_PARALLELISM_CONFIG"):
        if _flag(flag):
            raise ValueError(f"{flag} is set by the launcher, but engine={kind.value}; launch without it")
    for name, wanted, key in (
        ("ACCELERATE_MIXED_PRECISION", {"no", precision} if precision != "fp32" else {"no"}, "engine.precision"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", {"1", "auto", str(accumulation_steps)}, "trainer.global_batch_size"),
        ("ACCELERATE_GRADIENT_CLIPPING", {"auto", "none", str(float(clip_norm or 0))}, "trainer.gradient_clip_norm"),
        ("ACCELERATE_DYNAMO_BACKEND", {"NO", "no"}, "engine"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", {"cpu" if kind.offloads else "none"}, "engine"),
        ("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", {"cpu" if kind.offloads else "none"}, "engine"),
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE", {"none"}, "engine"),
    ):
        value = os.environ.get(name)
        if value is not None and value not in wanted:
            raise ValueError(
                f"{name}={value} is set by the launcher, but the config decides this ({key}, allowed here: "
                f"{', '.join(sorted(wanted))}); remove it from the launcher's configuration"
            )


def claim_environment(kind: EngineKind) -> None:
    """Remove the launcher's variables that would overrule our settings; give DeepSpeed alone what it needs."""
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:
        if name not in ("ACCELERATE_CPU_AFFINITY", "ACCELERATE_DEBUG_MODE"):
            del os.environ[name]
    if kind.zero_stage and not torch.cuda.is_available():
        # Said outright, or DeepSpeed warns about its guess.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    if kind.zero_stage and "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )  # fmt: skip


def _launched_by_accelerate() -> bool:
    return "ACCELERATE_MIXED_PRECISION" in os.environ


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes", "on")
