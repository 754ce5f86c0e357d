"""Kill packing at random instants and compare what the next run makes of it with an undisturbed run.

python -m tests.data_pipeline.kill_pack [kills] [seed]      prints a line per kill; exit code 1 for a difference
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import sys
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

from tests.data_pipeline.raw_folders import clips_folder, pack_quietly
from tests.warm_processes import Started, started_module


def contents(folder: Path) -> dict[str, str]:
    """Return the checksum of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def started_pack(raw: Path, output: Path, processes: int) -> AbstractContextManager[Started]:
    """Start packing in a process of its own."""
    return started_module("tests.data_pipeline.pack_once", [str(raw), str(output), str(processes)])


def kill_and_resume(folder: Path, kills: int, seed: int) -> list[str]:
    """Kill `kills` runs, each at a random instant before its end; say what each had reached.

    Raises AssertionError where a half-made set shows, or the resumed one differs from the undisturbed.
    """
    raw, undisturbed = clips_folder(folder / "raw", clips=12, frames=48), folder / "undisturbed"
    lengths = {}
    for processes in (1, 2, 1):  # the first has waited for imports, and does not count
        shutil.rmtree(undisturbed, ignore_errors=True)
        began = time.monotonic()
        with started_pack(raw, undisturbed, processes) as started:
            assert started.wait(120) == 0, started.said("stderr")
        lengths[processes] = time.monotonic() - began
    expected = contents(undisturbed)
    shards = len([name for name in expected if name.endswith(".tar")])
    draw, attempts = random.Random(seed), itertools.count()
    lines: list[str] = []
    while len(lines) < kills:
        output, processes = folder / f"set{next(attempts)}", 1 + len(lines) % 2
        instant = draw.uniform(0, lengths[processes])
        with started_pack(raw, output, processes) as started:
            time.sleep(instant)
            started.kill()
        said = f"{processes} processes, killed after {instant:.3f} of {lengths[processes]:.3f} s"
        complete = output.exists()
        if complete:
            assert contents(output) == expected, f"{said}: half a set shows"
        partial = folder / f".{output.name}.partial"
        kept = len(list((partial / "finished").glob("*.json")))
        inspected = len(list((partial / "inspection").glob("*.inspected")))
        pack_quietly(raw, output, samples_per_shard=2)
        assert contents(output) == expected, f"{said}: the resumed set differs"
        assert not partial.exists()
        if not complete:  # otherwise it was faster than the measured run, and does not count
            lines.append(f"{said}: had {inspected} groups of clips, {kept} of {shards} shards")
    return lines


def main() -> int:
    """Run the kills the command line asks for."""
    kills, seed = (int(each) for each in [*sys.argv[1:], "20", "0"][:2])
    with tempfile.TemporaryDirectory() as folder:
        try:
            print("\n".join(kill_and_resume(Path(folder), kills, seed)))
        except AssertionError as error:
            print(error)
            return 1
    print(f"{kills} kills: every resumed set equals the undisturbed one byte for byte")
    return 0


if __name__ == "__main__":
    sys.exit(main())
