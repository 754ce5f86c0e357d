"""Runs a script in two local processes, and ends as they do; a program of its own, because tests signal it."""

from __future__ import annotations

import signal
import sys

from launch.local_processes import LocalProcesses

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def main() -> None:
    """Run `python -c <arguments>` twice."""
    before = [signal.getsignal(number) for number in HANDLED]
    code = LocalProcesses([sys.executable, "-c", *sys.argv[1:]], 2).wait()
    assert [signal.getsignal(number) for number in HANDLED] == before
    raise SystemExit(code)


if __name__ == "__main__":
    main()
