"""What a run's user changed against the experiment."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from cami2v.training.callbacks.describe import ConfigChanges
from launch.compose import compose_config, plain, quote, running_choice

OWN = ("name", "resume", "init_from", "dry_run", "data.shards")
"""Keys every run has its own value of."""
RESOLVED = ("data.scale_policy",)
"""Keys whose null the program replaces by what it found."""


def config_changes(config: DictConfig, experiment: str | None = None) -> ConfigChanges:
    """Compare a config of `cami2v train` with its experiment's, which by default is that of the running command."""
    experiment = experiment or running_choice("experiment")
    given = [f"data.shards={quote(str(config.data.shards))}"]
    base = compose_config("train", [*([f"experiment={experiment}"] if experiment else []), *given])
    before, now = leaves(plain(base)), leaves(plain(config))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    return ConfigChanges(
        experiment=experiment,
        changes={
            key: (before.get(key), now.get(key))
            for key in changed
            if key not in OWN and not (key in RESOLVED and before[key] is None)
        },
    )


def leaves(node: object, key: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by full key."""
    if not isinstance(node, dict):
        return {key: node}
    return {k: v for name, inner in node.items() for k, v in leaves(inner, f"{key}.{name}" if key else name).items()}
