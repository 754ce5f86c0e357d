"""What a sweep leaves on disk.

<folder>/study.db  LOCK
         trials/trial-0003/       the trial's run folder, in which slurm/ is its job's
         logs/trial-0003.log      everything its processes said, over all starts
         trials.csv trials.json trials.md report.html
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cami2v.training.run_folder import RunFolder
from data_pipeline.file_locks import try_lock
from launch.sweeps.study import DATABASE, SweepStudy
from launch.sweeps.table import Row, rows, write_csv, write_json, write_markdown


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """Paths of a sweep, and who works on it."""

    path: Path

    def run(self, number: int) -> Path:
        """Return the run folder of a trial."""
        return self.path / "trials" / f"trial-{number:04d}"

    def log(self, number: int) -> Path:
        """Return the log of a trial."""
        return self.path / "logs" / f"trial-{number:04d}.log"

    def trial_lock(self, number: int) -> Path:
        """Return the file that the processes of a trial keep locked."""
        return self.path / "logs" / f".trial-{number:04d}.lock"

    @property
    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return (self.path / DATABASE).is_file()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Be the only process that works here. Raises ValueError where another one does."""
        RunFolder(self.path).check_writable()
        for folder in ("trials", "logs"):
            (self.path / folder).mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.path / "LOCK")
        if lock is None:
            raise ValueError(
                f"{self.path}: another process works on this sweep; sweep.status=true shows how far it is, "
                "sweep.parallel runs several trials at once, another name=... makes another sweep"
            )
        with lock:
            yield

    def busy(self) -> bool:
        """Whether a process works on this sweep now."""
        lock = try_lock(self.path / "LOCK")
        if lock is None:
            return True
        lock.release()
        return False

    def write_tables(self, study: SweepStudy, *, busy: bool = True, running: Collection[int] = ()) -> list[Row]:
        """Write the tables of all trials (see `rows`); return the rows."""
        table = rows(study, self.run, busy=busy, running=running)
        write_csv(self.path / "trials.csv", table)
        write_json(self.path / "trials.json", table)
        write_markdown(self.path / "trials.md", table)
        return table
