"""Is a checkpoint what was written? Every file's size and SHA-256 are in its record, and the record hashes itself."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from cami2v.file_hash import file_sha256
from cami2v.training.run_folder import FORMAT, RECORD, WEIGHTS, RunFolder

logger = logging.getLogger(__name__)


class DamagedCheckpointError(ValueError):
    """A file of a checkpoint is not what was written; the message names it."""


def sealed_record(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the record with size and hash of all files in `folder`, and its own hash."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(folder.iterdir())
    }
    sealed = record | {"files": files}
    return sealed | {"record_sha256": _record_hash(sealed)}


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Read trainer.json. Raises DamagedCheckpointError, and ValueError for another format."""
    path = checkpoint / RECORD
    try:
        record: dict[str, Any] = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedCheckpointError(f"{path}: cannot be read ({error})") from error
    if record.get("format") != FORMAT:
        raise ValueError(
            f"{path}: has format {record.get('format')!r}, this version continues format {FORMAT}; start a new run "
            f"from its weights with init_from={checkpoint / WEIGHTS}"
        )
    if record.get("record_sha256") != _record_hash(record):
        raise DamagedCheckpointError(f"{path}: was changed after it was written")
    return record


def check_files(checkpoint: Path) -> None:
    """Read every file of a checkpoint. Raises DamagedCheckpointError for the first that is not what was written."""
    for name, written in read_record(checkpoint)["files"].items():
        path = checkpoint / name
        if not path.is_file():
            raise DamagedCheckpointError(f"{path}: missing")
        if path.stat().st_size != written["bytes"]:
            raise DamagedCheckpointError(f"{path}: has {path.stat().st_size} bytes, {written['bytes']} were written")
        if file_sha256(path) != written["sha256"]:
            raise DamagedCheckpointError(f"{path}: its SHA-256 is not that of the file that was written")


def hash_weights(path: Path) -> str:
    """Return the SHA-256 of a weights file. Raises DamagedCheckpointError where the record beside it has another."""
    found = file_sha256(path)
    record = path.parent / RECORD
    if record.is_file():
        try:
            written = json.loads(record.read_text()).get("files", {}).get(path.name, {}).get("sha256", found)
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DamagedCheckpointError(f"{record}: cannot be read ({error}); use an older checkpoint") from error
        if found != written:
            raise DamagedCheckpointError(
                f"{path}: its SHA-256 is not that of the file that was written; use an older checkpoint"
            )
    return found


def intact_checkpoint(run: RunFolder, checkpoint: Path, *, fall_back: bool) -> Path:
    """Return `checkpoint` if it is intact, else, with `fall_back`, the newest intact one before it, with a warning.

    Raises DamagedCheckpointError naming the file and the older checkpoint to use, if there is one.
    """
    try:
        check_files(checkpoint)
    except DamagedCheckpointError as error:
        older = _newest_intact(run, before=checkpoint)
        if older is None:
            raise DamagedCheckpointError(
                f"{error}; {run.path} has no older intact checkpoint: start again under another name=..."
            ) from error
        if not fall_back:
            raise DamagedCheckpointError(
                f"{error}; write {older.name} into {run.checkpoints / 'latest'} to continue from there, or use "
                "resume=auto, which does"
            ) from error
        logger.warning("%s; continuing from the older checkpoint %s instead", error, older.name)
        return older
    return checkpoint


def _newest_intact(run: RunFolder, *, before: Path) -> Path | None:
    for candidate in reversed([run.checkpoint(step) for step in run.steps()]):
        if candidate >= before:
            continue
        try:
            check_files(candidate)
        except DamagedCheckpointError as error:
            logger.warning("%s", error)
        else:
            return candidate
    return None


def _record_hash(record: dict[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "record_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
