"""What the page knows of each visitor, in memory, until the page is closed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from cami2v.inference.app.gallery import Result
from cami2v.inference.app.job import Job
from cami2v.inference.app.preview import Subject
from cami2v.trajectories.choose import ChosenPath

MOST_VISITS = 100


@dataclass(slots=True)
class Visit:
    """An open page."""

    subject: Subject | None = None
    uploaded: tuple[ChosenPath, str] | None = None
    """A path from a file, and what the file is called."""
    results: list[Result] = field(default_factory=list)
    made: int = 0
    job: Job | None = None
    """What runs, or waits for its turn."""

    def begin(self) -> Job:
        """Note a new job. Raises ValueError while the last one runs."""
        if self.job is not None and self.job.began and self.job.open:
            raise ValueError("one video at a time: this page is still making one; wait for it, or cancel it")
        self.job = Job()
        return self.job

    def keep(self, result: Result, most: int) -> None:
        """Add a video to those that are shown; the oldest goes."""
        self.results = [*self.results, result][-most:]


class Visits:
    """All open pages; of those that never said good-bye, the longest unseen goes first."""

    def __init__(self, most: int = MOST_VISITS) -> None:
        self.most = most
        self._open: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, page: str) -> Visit:
        """Return the visit of a page."""
        with self._lock:
            visit = self._open.setdefault(page, Visit())
            self._open.move_to_end(page)
            while len(self._open) > self.most:
                _, gone = self._open.popitem(last=False)
                _stop(gone)
            return visit

    def leave(self, page: str) -> None:
        """Forget a page, and stop what it was waiting for."""
        with self._lock:
            gone = self._open.pop(page, None)
        if gone is not None:
            _stop(gone)


def _stop(visit: Visit) -> None:
    if visit.job is not None:
        visit.job.stop()
