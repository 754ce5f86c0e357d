"""Batches fetched one ahead: which ones, when, on which stream; and that no run sees a difference."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cami2v.batch import ClipBatch, ConditionTokens, TrainingBatch
from cami2v.training.callbacks.base import Callback
from cami2v.training.callbacks.log import MetricsLog
from cami2v.training.callbacks.skipped import SkippedClips
from cami2v.training.engine import Engine
from cami2v.training.preemption import StopRequests
from cami2v.training.prefetch import Arrival, Deliveries, SideStream, pinned, tensors
from tests.cami2v.training.test_skipped import Skipping
from tests.cami2v.training.toys import BAD_STEPS, LOGGING, ToyStream, forget_engine, toy_clip, train
from tools.benchmark_prefetch import AHEAD, prefetch_table, time_prefetch

SKIP = dataclasses.replace(BAD_STEPS, bad_step="skip")


def copy(batch: TrainingBatch) -> Arrival:
    """Stand for a copy to a device."""
    copied = batch.to("cpu")
    return lambda: copied


class Stream:
    """Clips 0, 1, 2, ..., up to one that cannot be read; keeps who asked."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken
        self.asked: list[str] = []
        self.answered = threading.Semaphore(0)

    def __iter__(self) -> Iterator[ClipBatch]:
        number = 0
        while True:
            self.asked.append(threading.current_thread().name)
            self.answered.release()
            if number == self.broken:
                raise ValueError(f"clip {number} cannot be read")
            yield toy_clip(number)
            number += 1

    def wait_for(self, requests: int) -> None:
        """Return once so many more clips have been asked for."""
        for _ in range(requests):
            assert self.answered.acquire(timeout=60)


def names(deliveries: Deliveries, count: int) -> list[str]:
    return [deliveries.next().batch.clip_ids[0] for _ in range(count)]


def test_one_batch_is_ahead_and_none_is_read_beyond_the_last() -> None:
    stream, main = Stream(), threading.current_thread().name
    with Deliveries(iter(stream), count=4, copy=copy) as deliveries:
        for number in range(4):
            assert names(deliveries, 1) == [f"clip{number:04d}"]
            stream.wait_for(2 if number == 0 else 1 if number < 3 else 0)
            time.sleep(0.02)  # for a second one ahead, which there must not be
            assert len(stream.asked) == min(number + 2, 4)
    assert stream.asked[0] == main, "workers start where the first batch is asked for"
    assert main not in stream.asked[1:]


def test_without_a_copy_there_is_no_thread_and_nothing_ahead() -> None:
    stream = Stream()
    with Deliveries(iter(stream), count=4, copy=None) as deliveries:
        delivered = [deliveries.next() for _ in range(3)]
    assert all(each.batch is each.on_device for each in delivered)
    assert stream.asked == [threading.current_thread().name] * 3


@pytest.mark.parametrize("ahead", [True, False])
def test_an_error_is_raised_where_its_batch_is_due(ahead: bool) -> None:
    stream = Stream(broken=2)
    with Deliveries(iter(stream), count=9, copy=copy if ahead else None) as deliveries:
        assert names(deliveries, 2) == ["clip0000", "clip0001"]
        with pytest.raises(ValueError, match="clip 2 cannot be read"):
            deliveries.next()


def test_an_error_of_a_batch_that_nobody_asks_for_is_not_raised() -> None:
    stream = Stream(broken=2)
    with Deliveries(iter(stream), count=9, copy=copy) as deliveries:
        names(deliveries, 2)
        stream.wait_for(3)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(params=[False, True], ids=["in step", "ahead"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, one_process: None) -> bool:
    """Train in this process, with batches ahead as on a GPU and without."""
    if request.param:
        monkeypatch.setattr(Engine, "copies_ahead", lambda self: copy)
    return bool(request.param)


def rows(folder: Path) -> list[dict]:
    """Return what was logged, without times and memory."""
    timed = (
        "train_seconds", "unix_time", "samples_per_second", "seconds_per_step", "data_wait_share", "peak_memory_bytes",
    )  # fmt: skip
    logged = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key not in timed} for row in logged]


class Stop(Callback):
    """Asks the run to stop after a step."""

    def __init__(self, step: int, file: Path) -> None:
        self.step = step
        self.file = file

    def on_step_end(self, run, report) -> None:
        if report.step == self.step:
            self.file.touch()


def uninterrupted(folder: Path, bad: dict[int, str]) -> list[dict]:
    """Train eight steps of four samples without anything ahead: one is replaced, one has no finite loss."""
    run(folder, bad)
    forget_engine()
    return rows(folder)


def run(folder: Path, bad: dict[int, str], **options: Any) -> None:
    stream = Skipping(bad)
    stream.poison = 22
    log = MetricsLog(every_steps=1, settings=LOGGING, config={})
    callbacks = (SkippedClips(stream=stream, log=log), *options.pop("callbacks", ()))
    given: dict = {"max_steps": 8, "checkpoint_every_steps": 1, "bad_steps": SKIP, **options}
    train(folder, "single", stream=stream, callbacks=callbacks, **given)


BAD = {2: "a", 4: "b", 16: "c", 31: "d"}
"""Samples 4 and 16 are the first of their steps: fetched during the step before."""


def test_a_run_is_the_same_with_batches_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None
) -> None:
    expected = uninterrupted(tmp_path / "in-step", BAD)
    assert any(row.get("skipped_steps") for row in expected)
    assert [row["step"] for row in expected if "skipped_samples" in row] == [1, 2, 5, 8]
    monkeypatch.setattr(Engine, "copies_ahead", lambda self: copy)
    run(tmp_path / "ahead", BAD)
    assert rows(tmp_path / "ahead") == expected


def test_a_run_that_was_asked_to_stop_continues_with_the_batch_that_was_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_process: None
) -> None:
    expected = uninterrupted(tmp_path / "whole", BAD)
    monkeypatch.setattr(Engine, "copies_ahead", lambda self: copy)
    file = tmp_path / "stop"
    run(tmp_path / "cut", BAD, callbacks=(Stop(3, file),), stop_requests=StopRequests(file))
    before = rows(tmp_path / "cut")
    assert {row["step"] for row in before} == {1, 2, 3, 4}, "the step after the request is the last"
    forget_engine()
    run(tmp_path / "cut", BAD, resume="auto")
    assert rows(tmp_path / "cut") == expected


class Slow(ToyStream):
    """Takes its time for every batch."""

    def stream(self, **where: int) -> Iterator[ClipBatch]:
        for batch in super().stream(**where):
            time.sleep(0.05)
            yield batch


class Think(Callback):
    """Takes time in every step."""

    def on_fit_start(self, run) -> None:
        run.engine.model.out.register_forward_hook(lambda *_: time.sleep(0.1))


def test_data_wait_is_the_time_that_a_step_waits(tmp_path: Path, ahead: bool) -> None:
    train(tmp_path, "single", stream=Slow(), callbacks=(Think(),), max_steps=3)
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    shares = [row["data_wait_share"] for row in logged[1:]]
    if ahead:
        assert min(shares) < 0.1, "fetched while the step before it ran"
    else:
        assert min(shares) > 0.15, "a third of a step"


def encoded_tokens() -> ConditionTokens:
    return ConditionTokens(tokens=torch.randn(2, 3, 4), blank=torch.zeros(3, 4))


def test_every_tensor_of_a_batch_is_found() -> None:
    batch = toy_clip(1)
    found = list(tensors(batch))
    fields = (batch.seeds, batch.video, batch.frame_indices, batch.frame_stride, batch.frames_per_second)
    cameras = batch.cameras
    inner = (cameras.world_to_camera, cameras.intrinsics_pixels, cameras.translation_scale)
    assert {id(tensor) for tensor in found} == {id(tensor) for tensor in (*fields, *inner)}
    assert len(list(tensors(encoded_tokens()))) == 2


def test_the_benchmark_times_both_ways(tmp_path: Path, one_process: None) -> None:
    engine = train(tmp_path, "single", max_steps=1, global_batch_size=1).engine
    weights = engine.model.get_parameter("out.weight")
    before = weights.detach().clone()
    times = time_prefetch(engine, toy_clip(0), 2, copy)
    assert {len(each) for each in (*times.rounds.values(), *times.waits.values())} == {2}
    for name, waits in times.waits.items():
        assert all(0 < wait < took for wait, took in zip(waits, times.rounds[name], strict=True))
    assert torch.equal(weights, before), "timed at a learning rate of 0"
    assert AHEAD in prefetch_table(times).markdown()


def video(batch: TrainingBatch) -> Tensor:
    """Return what a batch of pixels shows."""
    assert isinstance(batch, ClipBatch)
    return batch.video


@pytest.mark.gpu
class TestSideStream:
    """Not run so far: no machine of ours had a GPU."""

    def test_copies_equal_their_batches_in_pinned_memory(self) -> None:
        assert all(tensor.is_pinned() for tensor in tensors(pinned(toy_clip(0))))
        device = torch.device("cuda", 0)
        with Deliveries(iter(Stream()), count=20, copy=SideStream(device)) as deliveries:
            for number in range(20):
                delivered = deliveries.next()
                assert delivered.batch.seeds.device.type == "cpu"
                for ours, theirs in zip(tensors(delivered.on_device), tensors(toy_clip(number)), strict=True):
                    assert ours.device == device
                    assert torch.equal(ours.cpu(), theirs)

    def test_a_copy_does_not_wait_for_the_step_before(self) -> None:
        copy_ahead = SideStream(torch.device("cuda", 0))
        copy_ahead(toy_clip(0))()
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000_000)  # about a second of the compute stream
        arrive = copy_ahead(toy_clip(1))
        copy_ahead.stream.synchronize()
        assert not torch.cuda.current_stream().query(), "the copy is there, the step still runs"
        assert torch.equal(video(arrive()).cpu(), toy_clip(1).video)

    def test_memory_of_a_batch_in_use_is_not_given_to_the_next_copy(self) -> None:
        def large(value: float) -> ClipBatch:
            clip = toy_clip(0)
            return dataclasses.replace(clip, video=torch.full((8, 3, 16, 256, 256), value))

        copy_ahead = SideStream(torch.device("cuda", 0))
        sums: list[Tensor] = []
        for number in range(6):
            batch = copy_ahead(large(float(number)))()
            torch.cuda._sleep(200_000_000)  # the step reads its batch late, when the next copies have long begun
            sums.append(video(batch).mean())
            del batch
        assert [round(float(each), 3) for each in sums] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    def test_a_gpu_run_fetches_ahead_unless_told_otherwise(self, one_process: None, tmp_path: Path) -> None:
        trainer = train(tmp_path, "single", max_steps=3)
        assert isinstance(trainer.engine.copies_ahead(), SideStream)
        trainer.engine.settings = dataclasses.replace(trainer.engine.settings, prefetch=False)
        assert trainer.engine.copies_ahead() is None


def test_on_a_cpu_nothing_is_fetched_ahead(tmp_path: Path, one_process: None) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert train(tmp_path, "single", max_steps=1).engine.copies_ahead() is None
