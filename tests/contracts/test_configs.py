"""Every YAML in conf/ composes, and every part it names can be built from what it says."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from cami2v.signature import locate
from launch.compose import check_part, compose_config, conf_folder, part_keys, plain
from launch.data import SUBVERBS

CONF = conf_folder()
ENTRIES = sorted(path.stem for path in CONF.glob("*.yaml"))
ADDED_BY_THE_PROGRAM = {"backbone": {"latent_channels", "adapter_for"}}
"""What launch/build.py hands to a part beside its config."""
COMPLETED_BY_THE_PROGRAM = {("evaluate", "data"), ("sample", "sampler"), ("evaluate", "sampler")}
"""Where null means "as the checkpoint says", so that the part is complete only beside a checkpoint."""
GROUPS_OF_HYDRA = ("hydra",)
SHARED_BY_EXPERIMENTS = CONF / "experiment" / "base"
"""Reached through the experiments, which no command line can take apart."""


def defaults_of(entry: str) -> set[str]:
    """The groups an entry config chooses from."""
    items = yaml.safe_load((CONF / f"{entry}.yaml").read_text())["defaults"]
    return {group.removeprefix("override ").lstrip("/") for item in items if isinstance(item, dict) for group in item}


def choices() -> Iterator[tuple[str, str]]:
    """Every (entry, override) that swaps one preset of one group."""
    for entry in ENTRIES:
        for group in sorted(defaults_of(entry)):
            if group.split("/")[0] in GROUPS_OF_HYDRA:
                continue
            for path in sorted((CONF / group).rglob("*.yaml")):
                if path.parent == SHARED_BY_EXPERIMENTS:
                    continue
                yield entry, f"{path.parent.relative_to(CONF)}={path.stem}"


def check_all_parts(entry: str, overrides: list[str]) -> list[str]:
    config = compose_config(entry, overrides)
    keys = part_keys(config)
    for key in keys:
        node = config
        for name in key.split("."):
            node = node[name]
        if (entry, key) in COMPLETED_BY_THE_PROGRAM:
            written = {name: value for name, value in plain(node, key).items() if value is not None}
            check_part(written, key, None)
            continue
        left_to_the_user = {str(name) for name in node if OmegaConf.is_missing(node, name)}
        values: Any = OmegaConf.to_container(node, resolve=True)
        for name in left_to_the_user:
            del values[name]
        check_part(values, key, ADDED_BY_THE_PROGRAM.get(key, set()) | left_to_the_user)
    return keys


def test_the_entries_are_the_verbs():
    assert set(ENTRIES) == {
        "pack",
        "train",
        "sweep",
        "sample",
        "app",
        "trajectory",
        "evaluate",
        "compare",
        "export",
        "doctor",
    } | {f"data_{verb}" for verb in SUBVERBS}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_composes_with_its_defaults(entry):
    keys = check_all_parts(entry, [])
    if entry == "train":
        assert {"backbone", "camera", "first_stage", "diffusion.schedule"} <= set(keys)


@pytest.mark.parametrize(("entry", "override"), [pytest.param(*c, id=" ".join(c)) for c in choices()])
def test_every_preset_composes_and_its_parts_take_their_arguments(entry, override):
    check_all_parts(entry, [override])


def test_every_yaml_is_reached_by_some_entry():
    reached = {CONF / f"{override.replace('=', '/')}.yaml" for _, override in choices()}
    reached |= {CONF / f"{entry}.yaml" for entry in ENTRIES}
    for path in (CONF / "experiment").glob("*.yaml"):
        reached |= {
            path.parent / f"{item}.yaml" for item in yaml.safe_load(path.read_text())["defaults"] if "/" in item
        }
    unreached = {
        path for path in CONF.rglob("*.yaml") if path.relative_to(CONF).parts[0] not in GROUPS_OF_HYDRA
    } - reached
    assert {str(path.relative_to(CONF)) for path in unreached} == set()


def test_every_entry_uses_the_house_settings_of_hydra():
    for entry in ENTRIES:
        assert "hydra" in defaults_of(entry), f"conf/{entry}.yaml lacks `- hydra: default`"
        assert plain(compose_config(entry).paths)["runs"] == "runs"


def test_a_default_lives_in_yaml_or_in_the_signature_never_in_both():
    """An argument that every preset of a part sets has no default in the signature."""
    doubled = set()
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        doubled |= set(doubled_defaults(folder))
    assert doubled == set()


def doubled_defaults(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.yaml")):
        content = yaml.safe_load(path.read_text()) or {}
        if "_target_" not in content:
            continue
        parameters = signature(locate(content["_target_"], str(path))).parameters
        for name in content:
            if name in parameters and parameters[name].default is not Parameter.empty:
                yield f"{path.relative_to(CONF)}: {name} has a default in {content['_target_']} too"
