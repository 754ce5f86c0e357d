"""The working folder of a shard set that is not complete yet: what a killed run leaves for the next one to continue.

`.<name>.partial/` beside the output holds
    set/                    finished shards; becomes the output by one rename
    finished/<shard>.json   what is in a finished shard and its checksum; written after the shard
    inspection/             what is known of the raw clips
    writing/                shards being written; moved into set/ by rename
    plan.json, *.lock       which set this is going to be; who is at work
Several processes may work in it at once.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cami2v.file_hash import file_sha256
from data_pipeline.bad_clips import BadClip, Reason
from data_pipeline.file_locks import FileLock, try_lock, wait_for_lock
from data_pipeline.index import index_path
from data_pipeline.manifest import ShardEntry
from data_pipeline.shard_writer import Sample, write_shard

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedShard:
    """A shard that is complete on disk."""

    entry: ShardEntry | None
    """None where every clip planned for it turned out bad: there is no file then."""
    index_sha256: str | None
    sources: tuple[str, ...]
    bad: tuple[tuple[str, BadClip], ...]
    """Planned clips that did not decode, and why."""

    def intact_in(self, folder: Path) -> bool:
        """Tell whether the shard's files have the recorded checksums."""
        if self.entry is None:
            return True
        path = folder / self.entry.name
        return self.entry.matches(path) and _sha256(index_path(path)) == self.index_sha256


class PartialSet:
    """The working folder of one output; use `partial_set`."""

    def __init__(self, output: Path, settings: str) -> None:
        self.output = output
        self.settings = settings
        self.folder = output.parent / f".{output.name}.partial"
        self.inspection = self.folder / "inspection"
        self.shards = self.folder / "set"
        self._finished = self.folder / "finished"
        self._replaced = self.folder / "replaced"
        self.complete: str | None = None
        """The digest of the set at `output`, once it is known to be there."""
        self._presence: FileLock | None = None
        self._plan_presence: FileLock | None = None

    def adopt(self, plan: str, *, discard: bool) -> None:
        """Make this the folder of the set with digest `plan`, continuing what is there if it is the same.

        Raises ValueError where another set is under way: a live run always, shards of a killed run unless `discard`.
        """
        with wait_for_lock(self.folder / "plan.lock"):
            before = self.plan()
            if before not in (None, plan):
                self._give_up(str(before), discard=discard)
            elif before == plan and (kept := sum(1 for _ in self._finished.glob("*.json"))):
                logger.warning("%s: continuing an interrupted run, %d finished shards are there", self.folder, kept)
            for each in (self.shards, self._finished, self.folder / "writing"):
                each.mkdir(exist_ok=True)
            _write_json(self.folder / "plan.json", {"input_sha256": plan})
            self._plan_presence = wait_for_lock(self._plan_lock(plan), shared=True)

    def plan(self) -> str | None:
        """Return the digest of the set that is under way here."""
        try:
            return str(json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))["input_sha256"])
        except FileNotFoundError:
            return None

    def _plan_lock(self, plan: str) -> Path:
        return self.folder / f"plan-{plan[:16]}.lock"

    def _give_up(self, plan: str, *, discard: bool) -> None:
        alone = try_lock(self._plan_lock(plan))
        if alone is None:
            raise ValueError(
                f"output={self.output}: another run is writing other clips or with other settings into it at this "
                "moment; wait for it, end it, or choose another output"
            )
        with alone:
            kept = sum(1 for _ in self._finished.glob("*.json"))
            if kept and not discard:
                raise ValueError(
                    f"output={self.output}: {self.folder} holds {kept} finished shards of an interrupted run with "
                    "other clips or settings; run that one again to continue it, or set "
                    f"{self.settings}.overwrite=true to discard them"
                )
            if kept:
                logger.warning(
                    "%s: discarding %d finished shards of an interrupted run with other clips or settings",
                    self.folder,
                    kept,
                )
            for each in (self._finished, self.shards, self.folder / "writing"):  # records first: they vouch for shards
                shutil.rmtree(each, ignore_errors=True)
            self._plan_lock(plan).unlink(missing_ok=True)

    def lock_shard(self, name: str, *, wait: bool) -> FileLock | None:
        """Reserve a shard for this process; None where another one is at it and `wait` is false."""
        path = self.folder / f"{name}.lock"
        return wait_for_lock(path) if wait else try_lock(path)

    def finished(self, name: str) -> FinishedShard | None:
        """Return what the record of a shard says, without looking at the shard."""
        try:
            content = json.loads((self._finished / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return FinishedShard(
            entry=None if content["entry"] is None else ShardEntry(**content["entry"]),
            index_sha256=content["index_sha256"],
            sources=tuple(content["sources"]),
            bad=tuple((clip_id, BadClip(Reason(reason), message)) for clip_id, reason, message in content["bad"]),
        )

    def missing(self, names: Sequence[str]) -> list[str]:
        """Return the shards that are not finished."""
        return [name for name in names if self.finished(name) is None]

    def forget(self, name: str) -> None:
        """Drop the record of a shard, so that it is packed again."""
        (self._finished / f"{name}.json").unlink(missing_ok=True)

    def write(
        self, name: str, samples: Iterable[Sample], sources: Sequence[str], bad: Sequence[tuple[str, BadClip]]
    ) -> None:
        """Write a shard, then its record; both appear complete or not at all. No samples: only the record."""
        entry, index_sha256 = None, None
        remaining = iter(samples)
        first = next(remaining, None)
        if first is not None:
            writing = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder / "writing"))
            entry = write_shard(writing / name, itertools.chain([first], remaining))
            index_sha256 = _sha256(index_path(writing / name))
            for path in (index_path(writing / name), writing / name):
                path.replace(self.shards / path.name)
            writing.rmdir()
        record = {
            "entry": None if entry is None else asdict(entry),
            "index_sha256": index_sha256,
            "sources": sorted(set(sources)),
            "bad": [[clip_id, str(error.reason), str(error)] for clip_id, error in bad],
        }
        _write_json(self._finished / f"{name}.json", record)

    def assembling(self) -> FileLock:
        """Reserve the last step, which one process must do alone."""
        return wait_for_lock(self.folder / "assemble.lock")

    def appear(self) -> None:
        """Turn the finished shards into the output by one rename; call it while `assembling`.

        A set that is there is moved aside first; a kill between the two moves is mended by `partial_set`.
        """
        self.shards.chmod(0o755)
        if self.output.exists():
            self.output.rename(self._replaced)
        self.shards.rename(self.output)
        shutil.rmtree(self._replaced, ignore_errors=True)
        shutil.rmtree(self._finished, ignore_errors=True)

    def enter(self) -> None:
        """Make the folder and be present in it, and mend what a kill inside `appear` left."""
        while True:
            with suppress(FileNotFoundError):  # another process may be removing it
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._presence = wait_for_lock(self.folder / "running.lock", shared=True)
                if self._presence.current:
                    break
                self._presence.release()
        self.inspection.mkdir(exist_ok=True)
        if self._replaced.exists():
            with self.assembling():
                if not self.output.exists() and self._replaced.exists():
                    self._replaced.rename(self.output)
                shutil.rmtree(self._replaced, ignore_errors=True)

    def leave(self) -> None:
        """Give the locks back; the last one out removes a folder that is of no more use."""
        for lock in (self._plan_presence, self._presence):
            if lock is not None:
                lock.release()
        if self.complete is None:
            useless = self.plan() is None and not any(self.inspection.iterdir())
        else:
            useless = self.plan() in (None, self.complete)
        if not useless:
            return
        alone = try_lock(self.folder / "running.lock")
        if alone is not None:
            with alone:
                shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def partial_set(output: Path, settings: str = "pack") -> Iterator[PartialSet]:
    """Open the working folder of `output`, making it if need be; `settings` is the config key of its writer.

    It stays when the block fails or the process is killed, and goes away once `complete` is set and nobody else is
    in it.
    """
    partial = PartialSet(output, settings)
    partial.enter()
    try:
        yield partial
    finally:
        with suppress(FileNotFoundError):  # gone already: removed by whoever left last
            partial.leave()


def _sha256(path: Path) -> str | None:
    return file_sha256(path) if path.is_file() else None


def _write_json(path: Path, content: object) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
