"""Kill packing at random instants and compare what the next run makes of it with an undisturbed run.

python -m tests.data_pipeline.kill_pack [kills] [seed]      prints a line per kill; exit code 1 for a difference
"""

from __future__ import annotations

import hashlib
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.data_pipeline.raw_folders import clips_folder, pack_quietly

_PACK = (
    "from pathlib import Path\n"
    "from tests.data_pipeline.raw_folders import pack_quietly\n"
    "if __name__ == '__main__':\n"
    "    import webdataset  # takes longer than packing these clips\n"
    "    print('go', flush=True)\n"
    "    pack_quietly(Path({raw!r}), Path({output!r}), processes={processes}, samples_per_shard=2)\n"
)


def contents(folder: Path) -> dict[str, str]:
    """Return the checksum of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(raw: Path, output: Path, processes: int) -> subprocess.Popen[str]:
    """Start packing in a process of its own, and return when it begins."""
    script = output.parent / f"pack_{output.name}.py"
    script.write_text(_PACK.format(raw=str(raw), output=str(output), processes=processes))
    command = [sys.executable, "-c", f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    return process


def kill_and_resume(folder: Path, kills: int, seed: int) -> list[str]:
    """Kill `kills` runs, each at a random instant before its end; say what each had reached.

    Raises AssertionError where a half-made set shows, or the resumed one differs from the undisturbed.
    """
    raw, undisturbed = clips_folder(folder / "raw", clips=12, frames=48), folder / "undisturbed"
    lengths = {}
    for processes in (2, 1):
        shutil.rmtree(undisturbed, ignore_errors=True)
        process = start(raw, undisturbed, processes)
        began = time.monotonic()
        assert process.wait() == 0
        lengths[processes] = time.monotonic() - began
    expected = contents(undisturbed)
    shards = len([name for name in expected if name.endswith(".tar")])
    draw, attempts = random.Random(seed), itertools.count()
    lines: list[str] = []
    while len(lines) < kills:
        output, processes = folder / f"set{next(attempts)}", 1 + len(lines) % 2
        process = start(raw, output, processes)
        instant = draw.uniform(0, lengths[processes])
        time.sleep(instant)
        process.send_signal(signal.SIGKILL)
        process.wait()
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
