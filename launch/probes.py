"""What this machine has: packages, devices, attention kernels, codecs, compilers. `cami2v doctor` prints it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import warnings
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A Python package and what does not work without it."""

    distribution: str
    module: str
    needed_for: tuple[str, ...]
    """Verbs; empty for an optional package."""
    remedy: str = "make setup, or pip install -c constraints.txt -e ."
    without_it: str = ""
    """What an optional package's absence means."""


EVERY_VERB = ("pack", "train", "sample", "evaluate")
MODEL_VERBS = ("train", "sample", "evaluate")

PACKAGES = (
    Package(distribution="torch", module="torch", needed_for=EVERY_VERB),
    Package(distribution="torchvision", module="torchvision", needed_for=MODEL_VERBS),
    Package(distribution="numpy", module="numpy", needed_for=EVERY_VERB),
    Package(distribution="hydra-core", module="hydra", needed_for=EVERY_VERB),
    Package(distribution="einops", module="einops", needed_for=MODEL_VERBS),
    Package(distribution="jaxtyping", module="jaxtyping", needed_for=EVERY_VERB),
    Package(distribution="beartype", module="beartype", needed_for=EVERY_VERB),
    Package(distribution="webdataset", module="webdataset", needed_for=("pack", "train", "evaluate")),
    Package(distribution="decord", module="decord", needed_for=("pack", "train", "evaluate")),
    Package(distribution="av", module="av", needed_for=EVERY_VERB),
    Package(distribution="accelerate", module="accelerate", needed_for=("train",)),
    Package(distribution="deepspeed", module="deepspeed", needed_for=("train",)),
    Package(distribution="transformers", module="transformers", needed_for=("train", "data caption")),
    Package(distribution="wandb", module="wandb", needed_for=("train",)),
    Package(distribution="safetensors", module="safetensors", needed_for=MODEL_VERBS),
    Package(distribution="diffusers", module="diffusers", needed_for=MODEL_VERBS),
    Package(distribution="open_clip_torch", module="open_clip", needed_for=MODEL_VERBS),
    Package(distribution="timm", module="timm", needed_for=MODEL_VERBS),
    Package(distribution="torchmetrics", module="torchmetrics", needed_for=("evaluate",)),
    Package(distribution="scipy", module="scipy", needed_for=("pack", "sample", "evaluate")),
    Package(distribution="pycolmap", module="pycolmap", needed_for=("evaluate",)),
    Package(distribution="matplotlib", module="matplotlib", needed_for=("train", "sample", "evaluate")),
    Package(distribution="yt-dlp", module="yt_dlp", needed_for=("data download",)),
    Package(distribution="fsspec", module="fsspec", needed_for=("train", "evaluate")),
    Package(distribution="aiohttp", module="aiohttp", needed_for=("train", "evaluate")),
    Package(distribution="huggingface_hub", module="huggingface_hub", needed_for=("weights",)),
    Package(
        distribution="gradio",
        module="gradio",
        needed_for=(),
        remedy="pip install 'cami2v[app]'",
        without_it="no cami2v app",
    ),
    Package(
        distribution="s3fs",
        module="s3fs",
        needed_for=(),
        remedy="pip install 'cami2v[s3]'",
        without_it="no shards behind s3:// addresses",
    ),
    Package(
        distribution="xformers",
        module="xformers",
        needed_for=(),
        remedy="pip install 'cami2v[xformers]'",
        without_it="its attention kernels are not offered",
    ),
    Package(
        distribution="hydra-submitit-launcher",
        module="hydra_plugins.hydra_submitit_launcher.submitit_launcher",
        needed_for=(),
        remedy="pip install 'cami2v[submitit]'",
        without_it="no hydra/launcher=submitit_slurm; cluster=slurm does without",
    ),
)


def package_error(package: Package) -> str | None:
    """Import the package; return why that failed, or None."""
    try:
        importlib.import_module(package.module)
    except (ImportError, OSError, RuntimeError) as error:
        return " ".join(str(error).split())[:120] or type(error).__name__
    return None


def version(distribution: str) -> str:
    """Return the installed version, or "-"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def shard_addresses() -> dict[str, bool]:
    """Tell which addresses of shard sets can be opened here."""
    import fsspec

    from data_pipeline.remote import REMOTE_SCHEMES

    opened = {"file": True}
    for scheme in REMOTE_SCHEMES:
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError:
            opened[scheme] = False
        else:
            opened[scheme] = True
    return opened


def machine() -> str:
    """Describe interpreter, system, cores, memory and shared memory (data loader workers live on it)."""
    import psutil

    gib = 2**30
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / gib
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    text = f"{system}, {cores} CPU cores, {memory:.0f} GiB memory"
    if os.path.isdir("/dev/shm"):
        text += f", {shutil.disk_usage('/dev/shm').free / gib:.1f} GiB shared memory"
    return text


def devices() -> str:
    """List the CUDA devices with memory and capability, or say why there are none."""
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    if not torch.cuda.is_available():
        return f"no CUDA device (torch is built with {built}); the CPU works for backbone=tiny"
    names = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        names.append(
            f"{properties.name} {properties.total_memory / 2**30:.0f} GiB sm_{properties.major}{properties.minor}"
        )
    bfloat16 = "bf16 yes" if torch.cuda.is_bf16_supported() else "bf16 no, use precision fp16"
    return f"{len(names)} x {', '.join(sorted(set(names)))} ({built}, {bfloat16})"


def communication() -> dict[str, bool]:
    """Tell which torch.distributed backends this build of torch has."""
    import torch.distributed

    if not torch.distributed.is_available():
        return {"nccl": False, "gloo": False}
    return {"nccl": torch.distributed.is_nccl_available(), "gloo": torch.distributed.is_gloo_available()}


def attention_backends() -> dict[str, str]:
    """Tell for every value of `attention=` what it does or why it cannot here."""
    import torch

    from cami2v.attention.choice import automatic, machine_obstacle, training_obstacle

    cuda = torch.cuda.is_available()
    bands, plain = (automatic(bands=flag, cuda=cuda) for flag in (True, False))
    states = {"auto": plain if bands == plain else f"{plain}, {bands} for epipolar bands"}
    for backend in ("sdpa", "flex", "triton", "xformers"):
        never, not_in_training = machine_obstacle(backend), training_obstacle(backend)
        if never:
            states[backend] = f"no ({never})"
        elif not_in_training:
            states[backend] = f"sampling only ({not_in_training})"
        else:
            states[backend] = "yes, without masks only" if backend == "xformers" else "yes"
    return states


def attention_kernels(*, masked: bool) -> list[str]:
    """Run scaled-dot-product attention with each kernel on the fastest device here; list those that answer.

    The epipolar mask needs a kernel that takes a mask.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    on_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.float16) if on_gpu else ("cpu", torch.float32)
    query = torch.randn(1, 2, 64, 64, device=device, dtype=dtype)
    mask = torch.ones(64, 64, device=device, dtype=torch.bool) if masked else None
    working = []
    for name in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"):
        try:
            with warnings.catch_warnings(), sdpa_kernel(getattr(SDPBackend, name)):
                warnings.simplefilter("ignore")
                torch.nn.functional.scaled_dot_product_attention(query, query, query, attn_mask=mask)
        except (RuntimeError, ValueError):
            continue
        working.append(name.lower().removesuffix("_attention"))
    return working


def codecs() -> dict[str, bool]:
    """Tell whether H.264 can be read and written here."""
    import av

    return {"H.264 decoder": "h264" in av.codecs_available, "H.264 encoder": "libx264" in av.codecs_available}


def compilers() -> dict[str, str | None]:
    """Return where the tools are that DeepSpeed builds its ops with, and ffmpeg (None: not found)."""
    beside = os.path.dirname(sys.executable)
    search = os.pathsep.join((beside, os.environ.get("PATH", "")))
    return {tool: shutil.which(tool, path=search) for tool in ("g++", "ninja", "nvcc", "ffmpeg")}


def pycolmap_abilities() -> str:
    """Describe pycolmap's build: CUDA matching, global mapper."""
    import pycolmap

    mapper = "with" if hasattr(pycolmap, "global_mapping") else "WITHOUT"
    return f"{mapper} global mapper, CUDA {'yes' if pycolmap.has_cuda else 'no'}"


def compile_communication() -> str:
    """Compile and load DeepSpeed's shared-memory communication for CPU ranks. Raises RuntimeError where that fails."""
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    ShareMemCommBuilder().load(verbose=False)
    return "compiled and loaded"
