"""What an interrupted estimation found out: rows in `.<output>.partial`, one per clip, that the next run takes over."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from data_pipeline.file_locks import try_lock

Row = dict[str, Any]


class Progress:
    """The rows of one estimation, kept as they come; for one run at a time.

    `with` locks it. Raises ValueError where another run is at work, and where an interrupted run had another procedure
    (unless `discard`).
    """

    def __init__(self, output: Path, procedure: Row, *, discard: bool) -> None:
        self.path = output.with_name(f".{output.name}.partial")
        output.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.path)
        if lock is None or not lock.current:
            raise ValueError(
                f"{self.path}: another run is estimating for {output}; wait for it, or give another output"
            )
        self._lock = lock
        self.rows: dict[str, Row] = {}
        """By clip id, of the interrupted run."""
        try:
            self._file = self.path.open("r+b")
            self._take_over(procedure, discard)
        except BaseException:
            lock.release()
            raise

    def add(self, clip_id: str, row: Row) -> None:
        """Keep one clip's row; it survives the end of this process."""
        self._write({"clip": clip_id, "row": row})

    def finish(self) -> None:
        """Forget the rows: the output has them."""
        self.path.unlink()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._lock.release()

    def _take_over(self, procedure: Row, discard: bool) -> None:
        lines = _whole_lines(self._file.read())
        content = [json.loads(line) for line, _ in lines]
        same = bool(content) and content[0] == {"procedure": procedure}
        if content and not same and not discard:
            raise ValueError(
                f"{self.path}: {len(content) - 1} clips of an interrupted run with another depth source or other "
                "settings; repeat those, or set scale.overwrite=true to discard them"
            )
        # What follows the last whole line was being written when the run was killed.
        self._file.seek(lines[-1][1] if same else 0)
        self._file.truncate()
        if same:
            self.rows = {each["clip"]: each["row"] for each in content[1:]}
        else:
            self._write({"procedure": procedure})

    def _write(self, content: Row) -> None:
        self._file.write(json.dumps(content).encode() + b"\n")
        self._file.flush()


def _whole_lines(data: bytes) -> list[tuple[bytes, int]]:
    """Return the lines that were written to their end, each with where it ends."""
    lines, end = [], 0
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        lines.append((line, end))
    return lines
