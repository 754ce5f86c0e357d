"""The rows of metrics as TensorBoard event files."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def check_tensorboard() -> None:
    """Raise ValueError where the package is missing."""
    if find_spec("tensorboard") is None:
        raise ValueError(
            "logging.tensorboard=true: the package tensorboard is not installed; pip install 'cami2v[tensorboard]', or "
            "set logging.tensorboard=false (metrics.jsonl has the same numbers)"
        )


class TensorBoardFiles:
    """Event files of a run. What an earlier start of the run wrote after `step` disappears from view."""

    def __init__(self, folder: Path, *, step: int) -> None:
        check_tensorboard()
        # Imported here: it takes a second.
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)

    def write(self, row: dict[str, Any], step: int) -> None:
        """Add the numbers of a row."""
        for name, value in row.items():
            if isinstance(value, (int, float)):
                self._writer.add_scalar(name, value, global_step=step)

    def describe(self, name: str, content: Any, step: int) -> None:
        """Add a text."""
        text = "\n".join(f"    {line}" for line in json.dumps(content, indent=1, default=str).splitlines())
        self._writer.add_text(name, text, global_step=step)

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()
