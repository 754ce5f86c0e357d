"""What a run runs on."""

from __future__ import annotations

import os
import platform
import re
import socket
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

PACKAGES = ("cami2v", "torch", "accelerate", "deepspeed", "xformers", "torchvision", "numpy", "av", "wandb")
SCHEDULER_VARIABLES = ("SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT", "SLURM_JOB_NODELIST")


def process_info() -> dict[str, Any]:
    """Describe this process's machine and device."""
    return {
        "host": socket.gethostname(),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "device": _device(),
    }


def software() -> dict[str, Any]:
    """Describe what the run was started with."""
    installed = {distribution.name.lower() for distribution in metadata.distributions()}
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: metadata.version(name) for name in PACKAGES if name in installed},
        "cuda": torch.version.cuda,
        "nvidia_driver": _driver(),
        "scheduler": {name: os.environ[name] for name in SCHEDULER_VARIABLES if name in os.environ},
    }


def _device() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"name": "cpu", "memory_gib": None}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}


def _driver() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    match = re.search(r"Kernel Module\D*(\d[\d.]+)", path.read_text()) if path.is_file() else None
    return match[1] if match else None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*:\s*(.+)", path.read_text()) if path.is_file() else []
    return str(models[0]).strip() if models else platform.machine()
