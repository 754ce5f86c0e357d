"""Disks and servers that refuse: training goes on where it can, and says one line where it cannot."""

import dataclasses
import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cami2v.training.callbacks.base import TrainingStoppedError
from cami2v.training.run_folder import RunFolder
from tests.cami2v.training.toys import LOGGING, forget_engine, train

pytestmark = pytest.mark.usefixtures("one_process")


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_rows_that_a_full_disk_refuses_wait_until_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = RunFolder.append_metrics

    def refuse(folder: RunFolder, row: dict[str, Any]) -> None:
        if len(attempts := [*refuse.attempts, row["step"]]) in (2, 3):  # type: ignore[attr-defined]
            refuse.attempts = attempts  # type: ignore[attr-defined]
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        refuse.attempts = attempts  # type: ignore[attr-defined]
        append(folder, row)

    refuse.attempts = []  # type: ignore[attr-defined]
    monkeypatch.setattr(RunFolder, "append_metrics", refuse)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, "single", max_steps=4)
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert [record.message.partition(": ")[0] for record in caplog.records] == ["step 2", "step 4"]
    assert "cannot be written (No space left on device); training goes on" in caplog.messages[0]
    assert "no row is lost" in caplog.messages[1]


def test_a_row_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from cami2v.training.run_folder import RunFolder
folder = RunFolder(Path({str(tmp_path)!r}))
folder.append_metrics({{"step": 1}})
resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))
try:
    folder.append_metrics({{"step": 2, "loss": 0.123456789}})
except OSError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "metrics.jsonl" in done.stdout
    assert steps(tmp_path) == [1]


def test_a_run_folder_that_cannot_be_written_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "runs" / "train")
    folder.check_writable()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ValueError, match=f"paths.runs: {tmp_path} cannot be written \\(no permission\\)"):
        folder.check_writable()


def test_without_a_login_the_run_goes_on_offline_or_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    online = dataclasses.replace(LOGGING, wandb="online")
    with pytest.raises(TrainingStoppedError, match=r"logging.wandb=online: Weights & Biases refuses \(No API key"):
        train(tmp_path / "stopped", "single", logging=dataclasses.replace(online, wandb_failure="stop"))
    assert not (tmp_path / "stopped" / "metrics.jsonl").exists()
    forget_engine()
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "run", "single", logging=online, max_steps=1)
    assert any("logging offline, send it later: wandb sync" in message for message in caplog.messages)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert steps(tmp_path / "run") == [1]


def test_an_unreachable_server_leaves_the_identity_free_for_offline_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    modes: list[str] = []
    start, end = wandb.init, wandb.teardown

    def init(*, mode: Any, **settings: Any) -> Any:
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("connection refused\nwhile retrying")
        return start(mode=mode, **settings)

    monkeypatch.setattr(wandb, "init", init)

    def teardown() -> None:
        modes.append("teardown")
        end()

    monkeypatch.setattr(wandb, "teardown", teardown)
    train(tmp_path, "single", logging=dataclasses.replace(LOGGING, wandb="online"), max_steps=1)
    assert modes[:3] == ["online", "teardown", "offline"]


def test_training_goes_on_without_a_tracker_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from cami2v.training.callbacks.base import Callback
    from cami2v.training.callbacks.log import MetricsLog

    class Broken:
        def log(self, row: dict[str, Any], step: int) -> None:
            raise BrokenPipeError("the service is gone\nsecond line")

    log = MetricsLog(every_steps=1, settings=LOGGING, config={})

    class Track(Callback):
        def on_step_end(self, run, report) -> None:
            if report.step == 2:
                log._tracker = Broken()
            log.write(run, {"other": 1.0})

    with caplog.at_level(logging.WARNING):
        train(tmp_path, "single", max_steps=3, callbacks=(Track(),))
    assert steps(tmp_path) == [1, 1, 2, 2, 3, 3]
    assert len(caplog.messages) == 1
    assert "step 2: Weights & Biases failed (the service is gone); the run goes on without it" in caplog.messages[0]
