"""A scheduler's signal goes to every process of a job; a loader's worker must outlive it until training has saved."""

import multiprocessing
import signal
import subprocess
import time
from multiprocessing.synchronize import Event

from data_pipeline.workers import outlive_signals


def work(ready: Event) -> None:
    outlive_signals(0)
    ready.set()
    time.sleep(60)


def test_only_its_main_process_ends_a_worker() -> None:
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    worker = fork.Process(target=work, args=(ready,), daemon=True)
    worker.start()
    assert ready.wait(30)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
        subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
    worker.join(0.5)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
