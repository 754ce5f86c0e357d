"""python -m tests.launch.killed_evaluation <overrides>: an evaluation that kill -9 ends twice, in two stages."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cami2v.evaluation import generate, measure
from launch.compose import compose_config
from launch.evaluate import run


def kill_at(module: Any, name: str, call: int) -> None:
    """Let the `call`-th call of a function leave half a file and die."""
    real: Callable[..., None] = getattr(module, name)
    calls = 0

    def dying(path: Path, *given: Any, **named: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.partial").write_bytes(b"half of it")
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, *given, **named)

    setattr(module, name, dying)


def main() -> None:
    """Fork once for each stage, and check that the child did die by the signal."""
    for module, name, call in ((generate, "write_mp4", 4), (measure, "write_json", 5)):
        child = os.fork()
        if child == 0:
            kill_at(module, name, call)
            run(compose_config("evaluate", sys.argv[1:]))
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


if __name__ == "__main__":
    main()
