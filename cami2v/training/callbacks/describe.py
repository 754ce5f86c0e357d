"""What a run is and runs on, beside its config: for the run folder and for the trackers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.run_folder import replace_text
from cami2v.training.system_info import process_info, software

logger = logging.getLogger(__name__)

_SHOWN = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChanges:
    """Where a run's config differs from the experiment it was composed from."""

    experiment: str | None
    """None: the defaults."""
    changes: Mapping[str, tuple[Any, Any]]
    """By full key: the experiment's value and the run's; None where one has no such key."""

    def text(self, limit: int | None = None) -> str:
        """Return one line."""
        base = "the defaults" if self.experiment is None else f"experiment={self.experiment}"
        if not self.changes:
            return f"the config is that of {base}"
        shown = [f"{key} {before} -> {now}" for key, (before, now) in self.changes.items()][:limit]
        more = f", and {len(self.changes) - len(shown)} more" if len(shown) < len(self.changes) else ""
        return f"differs from {base}: {', '.join(shown)}{more}"

    def json(self) -> dict[str, Any]:
        """Return what files and trackers hold."""
        return {
            "experiment": self.experiment,
            "changes": {key: {"experiment": before, "run": now} for key, (before, now) in self.changes.items()},
        }


class DescribeRun(Callback):
    """Write system.json, one entry per start of the run, and config_changes.json; tell both to the trackers."""

    def __init__(self, *, changes: ConfigChanges, log: MetricsLog) -> None:
        self.changes = changes
        self.log = log

    def on_fit_start(self, run: RunContext) -> None:
        """Describe this start (collective); a disk that refuses is a warning."""
        processes = run.engine.gather_objects([process_info()])
        if not run.engine.is_main:
            return
        started = {
            "step": run.state.step, "unix_time": round(time.time(), 3), "git_revision": run.provenance.git_revision,
            "engine": run.engine.settings.kind.value, "precision": run.engine.settings.precision.value,
            **software(), "processes": processes,
        }  # fmt: skip
        logger.info("%s", self.changes.text(_SHOWN))
        try:
            run.folder.path.mkdir(parents=True, exist_ok=True)
            starts = json.loads(run.folder.system.read_text()) if run.folder.system.is_file() else []
            replace_text(run.folder.system, json.dumps([*starts, started], indent=1) + "\n")
            replace_text(run.folder.config_changes, json.dumps(self.changes.json(), indent=1) + "\n")
        except OSError as error:
            logger.warning("%s and %s cannot be written (%s)", run.folder.system, run.folder.config_changes, error)
        self.log.describe(run, {"system": started, "config_changes": self.changes.json()})
