"""Two rows of the fault table, as its command prints them; the whole of it takes minutes (docs/faults.md)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.warm_processes import plain_environment
from tools.inject_faults import continued_from, first_line, shortened

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_traceback_comes_first_and_the_run_continues(tmp_path: Path) -> None:
    # Data that are there are used; rendering some takes longer than the faults.
    pack_quietly(clips_folder(tmp_path / "raw", splits=["train"] * 4 + ["test"] * 2), tmp_path / "shards")
    done = subprocess.run(
        [sys.executable, "-m", "tools.inject_faults", "--only", "exception", "--folder", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=540, env=plain_environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| exception")]
    assert "| 1 | `[rank1]: Traceback" in row
    assert "nothing; 1 step computed again" in row
    said = (tmp_path / "exception-in-process-1-of-2.log").read_text()
    # Not a whole line: process 0 may log in the middle of it.
    assert "InjectedError: injected into process 1 at step 5" in said
    # Nothing of process 0, which only lost contact.
    assert "[rank0]" not in said
    assert "lost another one" not in said


def test_a_table_shows_the_first_line_that_is_not_information(tmp_path: Path) -> None:
    said = f"00:00:01 INFO continuing from step-00000012\n00:00:02 WARNING {tmp_path}/run broke\nerror: later\n"
    assert shortened(first_line(said), tmp_path) == "<run> broke"
    assert first_line("00:00:01 INFO all good\n") == "00:00:01 INFO all good"
    assert continued_from(said) == 12
    assert continued_from("new run") == 0
