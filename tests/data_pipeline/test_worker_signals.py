"""A scheduler's signal goes to every process of a job; a loader's worker must outlive it until training has saved."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, signal, subprocess, threading, time
from multiprocessing import active_children
from torch.utils.data import DataLoader
from data_pipeline.workers import outlive_signals, watched

# Some libraries start threads of their own in whatever is forked.
os.register_at_fork(after_in_child=threading.Thread(target=time.sleep, args=(60,), daemon=True).start)
batches = watched(DataLoader(range(8), num_workers=1, worker_init_fn=outlive_signals), lambda worker: "", "")
next(batches)
assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, []), "only workers are to block it"
(worker,) = active_children()
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
    subprocess.run(["kill", f"-{int(number)}", str(worker.pid)], check=True)
worker.join(0.5)
assert worker.is_alive(), worker
worker.terminate()
worker.join(10)
assert worker.exitcode == 0, worker
os._exit(0)
"""


def test_only_its_main_process_ends_a_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
