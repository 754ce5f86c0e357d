"""What became of each source video: one JSON line per result in a file that is only appended to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from threading import Lock

FILE_NAME = "download_status.jsonl"


class Status(StrEnum):
    """What became of a video."""

    OK = "ok"
    TOO_SHORT = "too_short"
    PRIVATE = "private"
    REMOVED = "removed"
    AGE_RESTRICTED = "age_restricted"
    REGION_BLOCKED = "region_blocked"
    MEMBERS_ONLY = "members_only"
    NOT_A_VIDEO = "not_a_video"
    BLOCKED = "blocked"
    NETWORK = "network"
    FAILED = "failed"


MEANING = {
    Status.OK: "there and checked",
    Status.TOO_SHORT: "there, but ends before the last annotated camera",
    Status.PRIVATE: "made private by its owner",
    Status.REMOVED: "deleted, or its account closed",
    Status.AGE_RESTRICTED: "needs the cookies of a signed-in adult",
    Status.REGION_BLOCKED: "not shown in this country",
    Status.MEMBERS_ONLY: "only for paying members",
    Status.NOT_A_VIDEO: "the address gives something else",
    Status.BLOCKED: "the site refuses this machine for now",
    Status.NETWORK: "connection failed or stalled",
    Status.FAILED: "for a reason not known here, see the message",
}

PERMANENT = frozenset(Status) - {Status.BLOCKED, Status.NETWORK, Status.FAILED}
"""Results another attempt is not expected to change."""
THERE = frozenset({Status.OK, Status.TOO_SHORT})
"""Results that leave a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One line of the file."""

    source_id: str
    address: str
    status: Status
    message: str
    """One line; empty for `ok`."""
    attempts: int
    clips: int
    """How many camera files name the video."""
    file: str | None
    """Name in the output folder."""
    bytes: int | None
    height: int | None
    width: int | None
    seconds: float | None
    """Time of the last frame."""
    finished: str
    """UTC, ISO 8601."""


class StatusFile:
    """Results by source id; the last line of a video counts. Raises ValueError for a file of something else."""

    def __init__(self, path: Path) -> None:
        self.results: dict[str, Result] = {}
        self._path = path
        self._lock = Lock()
        if path.is_file():
            self._read()

    def add(self, result: Result) -> None:
        """Append a result; callable from several threads."""
        line = json.dumps(asdict(result)) + "\n"
        with self._lock:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
            self.results[result.source_id] = result

    def _read(self) -> None:
        content = self._path.read_bytes()
        lines = content.decode(errors="replace").split("\n")
        if lines[-1]:
            # A killed run can leave half a line: cut it off, its video is asked again.
            with self._path.open("rb+") as file:
                file.truncate(content.rfind(b"\n") + 1)
        for number, line in enumerate(lines[:-1], 1):
            try:
                values = json.loads(line)
                result = Result(**(values | {"status": Status(values["status"])}))
            except (TypeError, ValueError, KeyError) as error:
                raise ValueError(
                    f"{self._path} line {number}: not a result of a download ({error}); remove the line"
                ) from error
            self.results[result.source_id] = result


def count(results: Iterable[Result]) -> dict[Status, list[Result]]:
    """Group results by status, in the order of `Status`."""
    grouped: dict[Status, list[Result]] = {}
    for result in results:
        grouped.setdefault(result.status, []).append(result)
    return {status: grouped[status] for status in Status if status in grouped}
