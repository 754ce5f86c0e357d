import errno
import os
from pathlib import Path

import pytest
import torch

from launch import first_failure
from launch.errors import disk_refusal
from launch.first_failure import wait_for_first_failure


def test_only_lost_contact_waits_for_the_process_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(first_failure.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", "3")
    assert wait_for_first_failure(RuntimeError("shapes differ")) is None
    assert not waited
    gloo = "[/x/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer. This is typically caused by"
    for lost in (RuntimeError(gloo), torch.distributed.DistBackendError("NCCL error: remote process exited. More")):
        line = wait_for_first_failure(lost)
        assert line is not None
        assert line.startswith("process 3 lost another one, whose own error comes first in the log (")
        assert "typically" not in line
    assert len(waited) == 2


def test_a_disk_that_refuses_is_one_line_and_other_os_errors_are_bugs(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "config.yaml"))
    line = disk_refusal(full)
    assert line is not None
    assert line.startswith(f"{tmp_path / 'config.yaml'}: cannot be written (No space left on device)")
    assert disk_refusal(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None
