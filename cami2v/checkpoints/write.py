"""Write checkpoints: complete or absent, whatever kills the run."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file

from cami2v.checkpoints.integrity import sealed_record
from cami2v.checkpoints.save import CheckpointContent
from cami2v.training.engine import Engine
from cami2v.training.run_folder import RECORD, RunFolder

SPARE_BYTES = 2**20
"""Room beside the tensors: headers, the record, random states."""


class CheckpointNotWrittenError(RuntimeError):
    """A checkpoint could not be written; the one before is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which checkpoints stay."""

    last: int
    """The newest so many."""
    every_steps: int
    """And all whose step is a multiple of this; 0: no others."""


def write_checkpoint(run: RunFolder, content: CheckpointContent, retention: Retention) -> Path:
    """Write a checkpoint, make it the latest and delete old ones (main process only).

    Everything is written and flushed under another name first; one rename makes it a checkpoint. A run killed at any
    instant keeps the previous one. Raises CheckpointNotWrittenError where the disk is full or refuses.
    """
    target = run.checkpoint(content.step)
    partial = run.checkpoints / f".saving-{target.name}"
    try:
        run.clean()
        partial.mkdir(parents=True)
        for name, tensors in content.files.items():
            save_file(tensors, str(partial / name), metadata=content.metadata.get(name))
            _flush(partial / name)
        record = sealed_record(content.record, partial)
        (partial / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        _flush(partial / RECORD)
        _flush(partial)
        if target.exists():
            # Left by a run that was killed before `latest` named it, or damaged: the same step again.
            replaced = target.with_name(f".replaced-{target.name}")
            os.replace(target, replaced)
            shutil.rmtree(replaced)
        os.replace(partial, target)
        _flush(run.checkpoints)
        run.set_latest(target)
        run.prune(retention.last, retention.every_steps)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointNotWrittenError(f"{target}: could not be written ({error})") from error
    return target


class CheckpointWriter:
    """Write checkpoints one at a time on the main process, in a thread of their own.

    Only files are touched there: everything that needs other processes happens in the calls. Python waits for the
    thread before it exits, so a run that ends early still completes the checkpoint it was writing.
    """

    def __init__(self, run: RunFolder, retention: Retention) -> None:
        self.run = run
        self.retention = retention
        self._thread: threading.Thread | None = None
        self._error: str | None = None

    def check_space(self, engine: Engine, tensors: int) -> None:
        """Raise CheckpointNotWrittenError, on every process, where `tensors` fp32 copies have no room (collective)."""
        error = None
        needed = engine.trained_parameters * 4 * tensors + SPARE_BYTES
        if engine.is_main:
            self.run.checkpoints.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.run.checkpoints).free
            if free < needed:
                error = (
                    f"{self.run.checkpoints}: a checkpoint needs {needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB "
                    "are free"
                )
        self._raise_everywhere(engine, error)

    def start(self, content: CheckpointContent | None) -> None:
        """Begin to write (`content` is None but on the main process); the last one must have been waited for."""
        if content is None:
            return
        assert self._thread is None
        self._thread = threading.Thread(target=self._write, args=(content,), name="checkpoint", daemon=False)
        self._thread.start()

    def wait(self, engine: Engine) -> None:
        """Return when nothing is being written (collective). Raises CheckpointNotWrittenError on every process."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        self._raise_everywhere(engine, error)

    def _write(self, content: CheckpointContent) -> None:
        try:
            write_checkpoint(self.run, content, self.retention)
        except CheckpointNotWrittenError as error:
            self._error = str(error)

    def _raise_everywhere(self, engine: Engine, error: str | None) -> None:
        errors = [message for message in engine.gather_objects([error]) if message is not None]
        if errors:
            raise CheckpointNotWrittenError(errors[0])


def _flush(path: Path) -> None:
    """Have a file or folder on the disk, not only in memory, before anything refers to it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
