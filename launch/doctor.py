"""`cami2v doctor`: what is installed here, and what is missing for what, on one screen."""

from __future__ import annotations

import logging
import textwrap
from dataclasses import dataclass

from omegaconf import DictConfig

from launch import probes
from launch.compose import entry, settings


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings:
    """Settings of `cami2v doctor`."""

    compile: bool
    """Compile DeepSpeed's CPU communication op as well."""


@dataclass(frozen=True, slots=True)
class Lack:
    """Something that is missing here."""

    what: str
    verbs: tuple[str, ...]
    """Which do not run without it."""
    without_it: str
    remedy: str
    required: bool


def run(config: DictConfig) -> None:
    """Print the report; exit code 1 if something required is missing."""
    doctor = settings(config.doctor, DoctorSettings, "doctor")
    logging.disable(logging.WARNING)  # DeepSpeed announces its choice of device while it is imported
    lacks = _packages()
    broken = {lack.what for lack in lacks}
    if "torch" not in broken:
        _row("devices", probes.devices())
        lacks += _distributed() + _attention()
    if "av" not in broken:
        lacks += _video()
    if not broken & {"fsspec", "aiohttp"}:
        _row("shards", ", ".join(f"{name}:// {_yes(there)}" for name, there in probes.shard_addresses().items()))
    lacks += _tools()
    if "pycolmap" not in broken:
        _row("pycolmap", probes.pycolmap_abilities())
    if doctor.compile and not broken & {"torch", "deepspeed"}:
        _row("deepspeed", f"CPU communication {probes.compile_communication()}")
    _verbs(lacks)
    for lack in lacks:
        _row("missing" if lack.required else "optional", f"{lack.what}: {lack.without_it} -> {lack.remedy}")
    if any(lack.required for lack in lacks):
        raise SystemExit(1)


def _packages() -> list[Lack]:
    lacks, versions = [], []
    for package in probes.PACKAGES:
        error = probes.package_error(package)
        versions.append(f"{package.distribution} {'NO' if error else probes.version(package.distribution)}")
        if error:
            effect = f"imports fail ({error})" if package.needed_for else package.without_it
            required = bool(package.needed_for)
            lacks.append(Lack(package.distribution, package.needed_for, effect, package.remedy, required))
    _row("cami2v", f"{probes.version('cami2v')} on {probes.machine()}")
    _row("packages", ", ".join(versions))
    return lacks


def _distributed() -> list[Lack]:
    backends = probes.communication()
    _row("distributed", ", ".join(f"{name} {_yes(there)}" for name, there in backends.items()))
    if backends["gloo"]:
        return []
    return [Lack("gloo", (), "no training with several CPU processes", "install another build of torch", False)]


def _attention() -> list[Lack]:
    _row("attention", "; ".join(f"{choice}: {state}" for choice, state in probes.attention_backends().items()))
    plain, masked = (" ".join(probes.attention_kernels(masked=flag)) for flag in (False, True))
    _row("sdpa", f"kernels {plain}; with a mask: {masked}")
    return []


def _video() -> list[Lack]:
    codecs = probes.codecs()
    _row("video", ", ".join(f"{name} {_yes(there)}" for name, there in codecs.items()))
    remedy = "install av from its wheel: pip install --force-reinstall av"
    return [Lack(name, probes.EVERY_VERB, "no mp4", remedy, True) for name, there in codecs.items() if not there]


def _tools() -> list[Lack]:
    tools = probes.compilers()
    _row(
        "tools", ", ".join(f"{tool} {_yes(path)}" for tool, path in tools.items()) + " (nvcc and ffmpeg are not needed)"
    )
    if tools["g++"] and tools["ninja"]:
        return []
    effect = "several CPU processes under DeepSpeed talk through gloo only, no optimizer offload"
    return [Lack("g++ or ninja", (), effect, "apt-get install g++; pip install ninja", False)]


def _verbs(lacks: list[Lack]) -> None:
    states = []
    for verb in probes.EVERY_VERB:
        missing = [lack.what for lack in lacks if verb in lack.verbs]
        states.append(f"{verb} {'NEEDS ' + ' '.join(missing) if missing else 'ready'}")
    _row("verbs", ", ".join(states))


def _yes(there: object) -> str:
    return "yes" if there else "no"


def _row(title: str, text: str) -> None:
    print(textwrap.fill(f"{title:<12}{text}", width=118, subsequent_indent=" " * 12, break_on_hyphens=False))


main = entry("doctor")(run)

if __name__ == "__main__":
    main()
