"""Jobs of visitors, and the models they use."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

import pytest

from cami2v.inference.app.job import Finished, Job
from cami2v.inference.app.models import HeldModels
from cami2v.inference.app.visit import Visit, Visits
from cami2v.inference.progress import Progress, SamplingCancelledError


def at(step: int) -> Progress:
    return Progress(step=step, steps=1000, seconds=1.0)


def steps(job: Job) -> int:
    for step in range(1, 1001):
        job.tell(at(step))
        if job.stopped:
            raise SamplingCancelledError("stopped")
        time.sleep(0.01)
    return 5


def raises(error: Exception) -> Any:
    def work(job: Job) -> None:
        raise error

    return work


def test_a_job_tells_how_far_it_is_and_what_came_of_it() -> None:
    heard = threading.Semaphore(0)

    def work(job: Job) -> int:
        for step in (1, 2, 3):
            job.tell(at(step))
            assert heard.acquire(timeout=60)
        return 5

    job = Job()
    told = []
    for each in job.follow(work):
        told.append(each)
        heard.release()
    assert told == [at(1), at(2), at(3), Finished(result=5)]
    assert not job.open


def test_who_listens_slowly_hears_the_newest() -> None:
    heard, told, end = threading.Event(), threading.Event(), threading.Event()

    def work(job: Job) -> None:
        job.tell(at(1))
        assert heard.wait(60)
        for step in range(2, 501):
            job.tell(at(step))
        told.set()
        assert end.wait(60)

    following = Job().follow(work)
    assert next(following) == at(1)
    heard.set()
    assert told.wait(60)
    assert next(following) == at(500)
    end.set()
    assert list(following) == [Finished()]


def test_a_job_stops_when_asked_and_when_nobody_listens() -> None:
    job = Job()
    told = []
    for each in job.follow(steps):
        told.append(each)
        job.stop()
    assert told[-1] == Finished()
    assert len(told) < 1000
    left = Job()
    following = left.follow(steps)
    next(following)
    following.close()
    assert left.stopped
    assert not left.open
    early = Job()
    early.stop()
    assert list(early.follow(raises(AssertionError("not begun")))) == [Finished()]


def test_user_errors_end_a_job_and_bugs_are_raised() -> None:
    assert list(Job().follow(raises(ValueError("wrong\n steps")))) == [Finished(error="wrong steps")]
    (end,) = Job().follow(raises(RuntimeError("CUDA out of memory. Tried\nmore")))
    assert isinstance(end, Finished)
    assert end.error is not None
    assert end.error.startswith("not enough memory (CUDA out of memory. Tried)")
    with pytest.raises(RuntimeError, match="a bug"):
        list(Job().follow(raises(RuntimeError("a bug"))))


def test_a_visitor_has_one_job_at_a_time() -> None:
    visit = Visit()
    visit.begin()
    waiting = visit.begin()
    following = waiting.follow(steps)
    next(following)
    with pytest.raises(ValueError, match="one video at a time"):
        visit.begin()
    following.close()
    assert visit.begin() is not waiting


def test_visits_end_when_the_page_is_closed_and_the_longest_unseen_goes_first() -> None:
    visits = Visits(most=2)
    first, second = visits.of("a"), visits.of("b")
    jobs = [first.begin(), second.begin()]
    assert visits.of("a") is first
    visits.of("c")
    assert jobs[1].stopped
    assert not jobs[0].stopped
    visits.leave("a")
    assert jobs[0].stopped
    assert visits.of("a") is not first


class Model:
    """Something that can be forgotten."""


def test_only_so_many_models_are_held_and_room_is_made_before_one_is_loaded() -> None:
    models = HeldModels(1)
    with models.using("a", Model) as first:
        known = weakref.ref(first)
    with models.using("a", Model) as again:
        assert again is first
    del first, again

    def load() -> Model:
        assert known() is None, "the former is gone before the next one comes"
        return Model()

    with models.using("b", load):
        assert models.names == ["b"]
    two = HeldModels(2)
    for name in ("a", "b", "a", "c"):
        with two.using(name, Model):
            pass
    assert two.names == ["a", "c"]
    with pytest.raises(ValueError, match="must be at least 1"):
        HeldModels(0)


def test_a_model_that_does_not_load_leaves_the_place_free() -> None:
    models = HeldModels(1)

    def load() -> Model:
        raise ValueError("weights: gone")

    with pytest.raises(ValueError, match="gone"), models.using("a", load):
        pass
    assert models.names == []
