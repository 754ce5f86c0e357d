import json
import os
import signal
from pathlib import Path

import pytest

from cami2v.training.callbacks.base import Callback, RunContext
from cami2v.training.preemption import StopRequest, StopRequests
from cami2v.training.state import StepReport
from tests.cami2v.training.toys import forget_engine, train

pytestmark = pytest.mark.usefixtures("one_process")


def losses(folder: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


class SignalAt(Callback):
    """Send this process signals at the end of a step, and while it then saves."""

    def __init__(self, step: int, *numbers: int) -> None:
        self.step = step
        self.numbers = numbers

    def on_step_end(self, run: RunContext, report: StepReport) -> None:
        if report.step in (self.step, self.step + 1):
            for number in self.numbers:
                os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "stop", "code"),
    [
        (signal.SIGTERM, StopRequest.PREEMPT, 85),
        (signal.SIGUSR1, StopRequest.PREEMPT, 85),
    ],
)
def test_a_signalled_run_saves_at_the_next_step_and_continues_exactly(
    tmp_path: Path, number: int, stop: StopRequest, code: int
) -> None:
    requests = StopRequests()
    with requests.listening():
        stopped = train(
            tmp_path / "run", "single", checkpoint_every_steps=100, callbacks=(SignalAt(2, number, number),),
            stop_requests=requests,
        )  # fmt: skip
    assert stopped.stop is stop
    assert stopped.stop.exit_code == code
    assert (tmp_path / "run" / "checkpoints" / "latest").read_text() == "step-00000003\n"
    forget_engine()
    train(tmp_path / "run", "single", resume="auto")
    forget_engine()
    whole = train(tmp_path / "whole", "single")
    assert whole.stop is StopRequest.NONE
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


def test_a_file_asks_for_preemption(tmp_path: Path) -> None:
    requests = StopRequests(tmp_path / "PREEMPT")
    assert requests.pending() is StopRequest.NONE
    (tmp_path / "PREEMPT").touch()
    stopped = train(tmp_path, "single", stop_requests=requests)
    assert stopped.stop is StopRequest.PREEMPT
    assert losses(tmp_path)[-1][0] == 1


def test_the_first_interrupt_asks_and_the_second_is_the_kernels(capfd: pytest.CaptureFixture) -> None:
    before = signal.getsignal(signal.SIGINT)
    requests = StopRequests()
    with requests.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.pending() is StopRequest.INTERRUPT
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert "saving at the next step" in capfd.readouterr().err
        os.kill(os.getpid(), signal.SIGTERM)
        assert requests.pending() is StopRequest.PREEMPT
    assert signal.getsignal(signal.SIGINT) == before
    assert StopRequest.INTERRUPT.exit_code == 130


def test_a_request_at_the_last_step_changes_nothing(tmp_path: Path) -> None:
    requests = StopRequests()
    with requests.listening():
        finished = train(tmp_path, "single", callbacks=(SignalAt(5, signal.SIGTERM),), stop_requests=requests)
    assert finished.stop is StopRequest.NONE
    assert finished.state.step == 6
